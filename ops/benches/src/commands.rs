//! Commands per second over one SSH connection: the node's `domain/list` beside OpenSSH's server running /bin/true. The
//! client is the same for both.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use russh::{
    ChannelMsg,
    client::{self, Handle},
    keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate},
};
use tokio::net::TcpSocket;

const COMMANDS: u64 = 1_000;

/// A program that ends with its owner.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Client;

impl client::Handler for Client {
    type Error = russh::Error;
    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

async fn measure(session: Handle<Client>, line: &str) -> f64 {
    let began = Instant::now();
    for _ in 0..COMMANDS {
        let mut channel = session.channel_open_session().await.expect("a channel");
        channel.exec(true, line).await.expect("sent");
        let mut status = None;
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::ExitStatus { exit_status } = message {
                status = Some(exit_status);
            }
        }
        assert_eq!(status, Some(0), "{line}");
    }
    let rate = COMMANDS as f64 / began.elapsed().as_secs_f64();
    let _ = session.disconnect(russh::Disconnect::ByApplication, "", "en").await;
    rate
}

pub async fn connect(at: SocketAddr) -> Handle<Client> {
    connect_from(Ipv4Addr::LOCALHOST.into(), at).await
}

/// From an address of this machine's.
pub async fn connect_from(own: IpAddr, at: SocketAddr) -> Handle<Client> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let connected = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((own, 0).into())?;
            let stream = socket.connect(at).await?;
            stream.set_nodelay(true)?;
            client::connect_stream(Arc::default(), stream, Client).await
        };
        match connected.await {
            Ok(session) => return session,
            Err(e) => assert!(Instant::now() < deadline, "{at}: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The node beside this program.
pub struct Node {
    pub server: Server,
    address: SocketAddr,
    password: String,
}

impl Node {
    /// With more configuration.
    pub fn start(directory: &Path, sip: &str, more: &str) -> Self {
        let doors = format!(
            "[cocon]\nlisten = \"127.0.0.1:0\"\n[web]\nlisten = \"127.0.0.1:0\"\n[sip]\nlisten = \"{sip}\"\n\
             [speech]\nasr = \"\"\nattendant = \"\"\nmanager = \"\"\n[phone_book]\nlisten = \"\"\n[log]\nlevel = \"warn\"\n{more}"
        );
        std::fs::write(directory.join("hypha.toml"), doors).expect("written");
        let binary = std::env::current_exe().expect("a path").with_file_name("hypha");
        let mut node = Command::new(binary)
            .args(["run", "--config"])
            .arg(directory.join("hypha.toml"))
            .arg("--data")
            .arg(directory.join("data"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("ops/bench builds it");
        let lines = BufReader::new(node.stdout.take().expect("a pipe")).lines();
        let server = Server(node);
        let mut password = String::new();
        for line in lines.map_while(Result::ok) {
            if let Some((_, p)) = line.split_once("user admin, password ") {
                password = p.to_owned();
            }
            if let Some((port, host)) =
                line.strip_prefix("hypha is ready: ssh -p ").and_then(|r| r.split_once(" admin@"))
            {
                let address = format!("{host}:{port}").parse().expect("an address");
                return Self { server, address, password };
            }
        }
        panic!("the node does not start");
    }

    async fn session(&self) -> Handle<Client> {
        let mut session = connect(self.address).await;
        assert!(session.authenticate_password("admin", &self.password).await.expect("answered").success());
        session
    }

    /// Commands that must succeed.
    pub fn run(&self, lines: &[&str]) {
        lines.iter().for_each(|line| drop(self.say(line, b"")));
    }

    /// A command with its input; what it answers.
    pub fn say(&self, line: &str, input: &[u8]) -> String {
        runtime().block_on(async {
            let session = self.session().await;
            let mut channel = session.channel_open_session().await.expect("a channel");
            channel.exec(true, line).await.expect("sent");
            if !input.is_empty() {
                channel.data(input).await.expect("sent");
                channel.eof().await.expect("sent");
            }
            let (mut status, mut said) = (None, Vec::new());
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                    ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => {
                        said.extend_from_slice(&data)
                    }
                    _ => {}
                }
            }
            let said = String::from_utf8_lossy(&said).into_owned();
            assert_eq!(status, Some(0), "{line}: {said}");
            said
        })
    }
}

pub fn hypha(directory: &Path) -> f64 {
    let node = Node::start(directory, "127.0.0.1:0", "");
    runtime().block_on(async { measure(node.session().await, "domain/list").await })
}

pub fn openssh(directory: &Path) -> f64 {
    let file = |name: &str| directory.join(name).display().to_string();
    for key in ["host", "client"] {
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]).status();
        assert!(made.expect("ops/bench installs it").success());
    }
    std::fs::rename(file("client.pub"), file("authorized")).expect("renamed");
    std::fs::set_permissions(file("authorized"), std::fs::Permissions::from_mode(0o600)).expect("set");
    // The port is free a moment later too, or sshd says that it is not.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    // SHLVL keeps a bash from reading the user's .bashrc for every command.
    std::fs::write(
        file("sshd_config"),
        format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             ForceCommand /bin/true\nMaxSessions 10\nPermitRootLogin yes\nSetEnv SHLVL=2\n",
            file("host"),
            file("authorized")
        ),
    )
    .expect("written");
    let _ = std::fs::create_dir("/run/sshd");
    let sshd = Command::new("/usr/sbin/sshd").args(["-D", "-f", &file("sshd_config")]).spawn();
    let _sshd = Server(sshd.expect("ops/bench installs it"));
    let key = PrivateKey::from_openssh(std::fs::read(file("client")).expect("read")).expect("a key");
    let me = Command::new("id").arg("-un").output().expect("it runs").stdout;
    runtime().block_on(async {
        let mut session = connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let me = String::from_utf8_lossy(&me).trim().to_owned();
        assert!(session.authenticate_publickey(me, key).await.expect("answered").success());
        measure(session, "true").await
    })
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
