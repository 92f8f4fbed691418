//! Chromium, driven over WebDriver.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use fantoccini::{Client, ClientBuilder, Locator};

/// Chromium and its driver; they end with the test.
pub struct Browser {
    driver: Child,
    pub client: Client,
    _profile: tempfile::TempDir,
}

/// How long the page has to show what is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

impl Browser {
    pub async fn open() -> Self {
        Self::open_with(&[]).await
    }

    /// With more arguments.
    pub async fn open_with(more: &[&str]) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver runs; ops/test installs it");
        let lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines();
        let started = "was started successfully on port ";
        let port = lines
            .map_while(Result::ok)
            .find_map(|l| l.split_once(started).map(|(_, p)| p.trim_end_matches('.').to_owned()));
        let port = port.expect("chromedriver says its port");
        let profile = tempfile::tempdir().expect("a directory");
        let data = format!("--user-data-dir={}", profile.path().display());
        let mut arguments = vec![
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &data,
        ];
        arguments.extend(more);
        let options = serde_json::json!({
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let capabilities = options.as_object().expect("an object").clone();
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("a browser");
        Self { driver, client, _profile: profile }
    }

    pub async fn shows(&self, css: &str) -> fantoccini::elements::Element {
        self.client
            .wait()
            .at_most(PATIENCE)
            .for_element(Locator::Css(css))
            .await
            .unwrap_or_else(|e| panic!("{css}: {e}"))
    }

    /// Logs in at the admin of a program.
    pub async fn log_in(&self, node: &super::Node, user: &str, password: &str) {
        self.client.goto(&node.web).await.expect("the page");
        self.shows("input[name=user]").await.send_keys(user).await.expect("typed");
        self.shows("input[name=password]").await.send_keys(password).await.expect("typed");
        self.click("form.login button").await;
    }

    /// Clicks it; a live page may draw it anew between being found and being clicked.
    pub async fn click(&self, css: &str) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while let Err(e) = self.shows(css).await.click().await {
            assert!(std::time::Instant::now() < deadline, "{css}: {e}");
            tokio::task::yield_now().await;
        }
    }

    /// Until the element's text is as wanted.
    pub async fn reads(&self, css: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let text = match self.client.find(Locator::Css(css)).await {
                Ok(e) => e.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            if wanted(&text) {
                return text;
            }
            assert!(std::time::Instant::now() < deadline, "{css} reads {text:?}");
            tokio::task::yield_now().await;
        }
    }

    pub async fn close(self) {
        let _ = self.client.clone().close().await;
    }
}

impl Drop for Browser {
    /// Also when the test fails: the driver takes its Chromium with it.
    fn drop(&mut self) {
        let _ = Command::new("pkill").args(["-KILL", "-P", &self.driver.id().to_string()]).status();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
