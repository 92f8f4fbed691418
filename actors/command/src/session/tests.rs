use super::*;
use crate::{Command, Grants, Kind, Names};

fn names(list: &'static [&'static str]) -> Names {
    Arc::new(move |_| list.iter().map(|n| (*n).to_owned()).collect())
}

fn tree() -> Arc<Tree> {
    let mut tree = Tree::default();
    tree.variable("domain", names(&["voip.local", "local.voip"]));
    let added = tree.add([
        Command::look("domain/list", "lists domains", "список доменов", |_| async {
            let mut t = Table::new(["Name", "State"]);
            t.row(["voip.local", "active"]);
            Ok(Output::table(t))
        }),
        Command::change("domain/{domain}/np/declare", "declares a plan", "объявить план", |c| async move {
            Ok(Output::text(format!("{} in {}", c.get("numplan"), c.var("domain"))))
        })
        .arg("numplan", Kind::Text, "its name", "имя плана"),
        Command::change("bridge/cleanup", "removes all bridges", "удалить все", |_| async {
            Ok(Output::ok())
        })
        .confirm(|_| "You are going to cleanup all bridges in the system.".into()),
        Command::change("sorm/password", "a secret", "секрет", |_| async { Ok(Output::ok()) })
            .arg("password", Kind::Secret, "it", "он")
            .system_only(),
        Command::look("echo", "says it", "сказать", |c| async move {
            Ok(Output::text(c.all("word").join("+")))
        })
        .arg("word", Kind::Text, "any", "любые")
        .many()
        .option("--times", Kind::Number(1, 3), "how often", "сколько раз"),
        Command::change("keep", "keeps what comes", "сохранить", |c| async move {
            let came = c.input.as_deref().map(|b| String::from_utf8_lossy(b).into_owned());
            Ok(Output::text(format!("{} {came:?}", c.opt("--id").unwrap_or_default())))
        })
        .option("--id", Kind::Text, "its name", "имя")
        .raw("--json", "anything", "что угодно"),
    ]);
    assert_eq!(added, Ok(()));
    Arc::new(tree)
}

fn session(roles: &str) -> Session {
    let grants: Grants = roles.parse().expect("good roles");
    let caller = Caller { name: "admin".into(), from: "test".into(), grants };
    let info = SessionInfo { node: "ds1@ecss1".into(), installation: Arc::new(|| "HYPHA".into()) };
    Session::new(tree(), info, kit::Clock::System, caller)
}

async fn say(s: &mut Session, line: &str) -> (String, u32) {
    match s.execute_alone(line, None).await.1 {
        Outcome::Said { text, status } => (text, status),
        other => panic!("{line}: {other:?}"),
    }
}

#[tokio::test]
async fn paths_lead_to_commands_from_anywhere() {
    let mut s = session("ecss-system-admin");
    for line in ["domain/list", "/domain/list"] {
        let (text, status) = say(&mut s, line).await;
        assert!(status == 0 && text.contains("| voip.local | active |"), "{text}");
        assert!(text.contains("\n\n[exec at: ") && text.trim_end().ends_with("nodes: ds1@ecss1]"), "{text}");
    }
    assert_eq!(s.execute("cd domain/voip.local/np", None).await, Outcome::Quiet);
    assert_eq!(s.prompt(), "admin@[ds1@ecss1#HYPHA]:/domain/voip.local/np$ ");
    assert!(say(&mut s, "./declare city").await.0.starts_with("city in voip.local"));
    assert!(say(&mut s, "echo a b").await.0.starts_with("a+b"), "commands of the root are global");
    assert_eq!(s.execute("cd ..", None).await, Outcome::Quiet);
    assert_eq!(s.cwd(), "/domain/voip.local");
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let mut s = session("ecss-system-admin");
    for (line, status, hint) in [
        ("domain/lst", 2, "did you mean list?"),
        ("domain/voip.locl/np/declare x", 2, "did you mean voip.local?"),
        ("domain/voip.local/np/declare", 2, "<numplan> is missing"),
        ("domain/voip.local/np/declare a b", 2, "one argument too many"),
        ("echo --tims 2 a", 2, "did you mean --times?"),
        ("echo --times 9 a", 2, "a number from 1 to 3"),
        ("domain", 2, "is a directory"),
        ("cd domain/list", 2, "is a command"),
        ("echo \"a", 2, "not closed"),
        ("bridge/cleanup", 4, "confirm with --force"),
    ] {
        let (text, got) = say(&mut s, line).await;
        assert!(
            got == status && text.starts_with("Command error: ") && text.contains(hint),
            "{line}: {got} {text}"
        );
    }
}

#[tokio::test]
async fn dangerous_commands_ask_first() {
    let mut s = session("ecss-system-admin");
    let asked = s.execute("bridge/cleanup", None).await;
    let question = "[cleanup] You are going to cleanup all bridges in the system.".to_owned();
    assert_eq!(asked, Outcome::Asks { question });
    let (text, status) = say(&mut s, "bridge/cleanup --json").await;
    let data: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(status == 4 && data["code"] == "unconfirmed", "{text}");
    assert!(matches!(s.execute_confirmed("bridge/cleanup", None).await, Outcome::Said { status: 0, .. }));
    assert_eq!(say(&mut s, "bridge/cleanup --force").await.1, 0);
}

#[tokio::test]
async fn roles_bound_what_is_seen_and_done() {
    let mut reader = session("ecss-read-only");
    assert_eq!(say(&mut reader, "domain/list").await.1, 0);
    assert_eq!(say(&mut reader, "domain/voip.local/np/declare x").await.1, 3);
    let mut owner = session("ecss-voip.local-domain-admin");
    assert_eq!(say(&mut owner, "domain/voip.local/np/declare x").await.1, 0);
    let foreign = say(&mut owner, "domain/local.voip/np/declare x").await;
    assert_eq!(foreign.1, 2, "another domain is not even there: {}", foreign.0);
    assert_eq!(say(&mut owner, "bridge/cleanup --force").await.1, 3);
    assert!(!say(&mut owner, "ls").await.0.contains("bridge"));
    assert!(say(&mut owner, "ls domain").await.0.contains("voip.local/"));
}

#[tokio::test]
async fn answers_come_as_json_too() {
    let mut s = session("ecss-system-admin");
    let (text, _) = say(&mut s, "domain/list --json").await;
    let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(rows, serde_json::json!([{ "name": "voip.local", "state": "active" }]));
    let (text, status) = say(&mut s, "domain/lst --json").await;
    assert!(status == 2 && text.contains("\"error\""));
}

#[tokio::test]
async fn what_is_behind_a_raw_option_comes_as_it_is() {
    let mut s = session("ecss-system-admin");
    let (text, status) = say(&mut s, r#"keep --id a --json {"b": "c \"d\"", 'e'"#).await;
    assert!(status == 0 && text.starts_with(r#"a Some("{\"b\": \"c \\\"d\\\"\", 'e'")"#), "{text}");
    assert!(say(&mut s, "keep --id a").await.0.starts_with("a None"));
}

#[test]
fn tab_completes_paths_options_and_names() {
    let s = session("ecss-system-admin");
    let texts = |line: &str| s.complete(line).candidates.into_iter().map(|c| c.text).collect::<Vec<_>>();
    assert_eq!(texts("dom"), ["domain/"]);
    assert_eq!(texts("domain/"), ["domain/list ", "domain/voip.local/", "domain/local.voip/"]);
    assert_eq!(texts("domain/v"), ["domain/voip.local/"]);
    assert_eq!(texts("echo --t"), ["--times "]);
    assert_eq!(texts("cd bri"), ["bridge/"]);
    assert_eq!(s.complete("domain/voip.local/np/d").common(), "domain/voip.local/np/declare ");
    assert_eq!(s.complete("  dom").start, 2);
}

#[tokio::test]
async fn help_speaks_both_languages() {
    let mut s = session("ecss-system-admin");
    assert!(say(&mut s, "help").await.0.contains("/domain/<domain>/np/declare"));
    let (text, _) = say(&mut s, "domain/voip.local/np/declare --help").await;
    assert!(text.contains("Usage: /domain/<domain>/np/declare <numplan>"), "{text}");
    assert_eq!(s.execute("lang ru", None).await, Outcome::Quiet);
    assert!(say(&mut s, "help domain/list").await.0.contains("список доменов"));
}

#[test]
fn lines_with_secrets_are_known() {
    let s = session("ecss-system-admin");
    assert!(s.holds_secret("sorm/password abc"));
    assert!(!s.holds_secret("domain/list"));
}
