//! The phone book service with its three sources: the node itself, MariaDB, OpenLDAP.

mod support;

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
};

use support::{Node, calls::until, curl, phones::free_tcp_port};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// MariaDB with a table of people.
fn mariadb(dir: &Path, port: u16) -> Server {
    let data = dir.join("mariadb");
    let installed = quiet("mariadb-install-db")
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"])
        .arg(format!("--datadir={}", data.display()))
        .status();
    assert!(installed.expect("ops/test installs it").success());
    let socket = dir.join("mariadb.sock");
    let server = quiet("mariadbd")
        .args(["--no-defaults", "--bind-address=127.0.0.1", "--user=root", "--innodb-buffer-pool-size=16M"])
        .arg(format!("--datadir={}", data.display()))
        .arg(format!("--socket={}", socket.display()))
        .arg(format!("--port={port}"))
        .spawn()
        .expect("ops/test installs it");
    let server = Server(server);
    let sql = "CREATE DATABASE staff CHARACTER SET utf8mb4; USE staff;
        CREATE TABLE phone_book (name VARCHAR(100), number INT, mail VARCHAR(100));
        INSERT INTO phone_book VALUES ('Казарцев Евгений', 4819, 'ek@voip.test'), ('Лосев & сын', 4820, NULL), ('', 4821, NULL), ('Без номера', NULL, NULL);
        CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'Geheim77'; GRANT SELECT ON staff.* TO reader@'127.0.0.1';";
    until("the database takes its table", || {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--default-character-set=utf8mb4", "-u", "root"]);
        client.arg(format!("--socket={}", socket.display()));
        let child = client.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("ops/test installs it");
        let written = child.stdin.take().expect("a pipe").write_all(sql.as_bytes());
        written.is_ok() && child.wait().expect("it ends").success()
    });
    server
}

/// OpenLDAP with people; more than a page of them.
fn slapd(dir: &Path, port: u16) -> Server {
    let data = dir.join("ldap");
    std::fs::create_dir(&data).expect("made");
    let configuration = dir.join("slapd.conf");
    let text = format!(
        "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\ninclude /etc/ldap/schema/inetorgperson.schema\n\
         modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {0}/slapd.pid\nargsfile {0}/slapd.args\n\
         database mdb\nsuffix \"dc=voip,dc=test\"\nrootdn \"cn=admin,dc=voip,dc=test\"\nrootpw Geheim77\ndirectory {1}\n\
         require authc\n",
        dir.display(),
        data.display()
    );
    std::fs::write(&configuration, text).expect("written");
    let mut people =
        "dn: dc=voip,dc=test\nobjectClass: dcObject\nobjectClass: organization\no: voip\ndc: voip\n\n"
            .to_owned();
    for n in 0..600 {
        people.push_str(&format!(
            "dn: uid=p{n},dc=voip,dc=test\nobjectClass: inetOrgPerson\nuid: p{n}\nsn: Person\ncn: Person {n:03}\n\
             telephoneNumber: {}\nmail: p{n}@voip.test\n\n",
            5000 + n
        ));
    }
    people.push_str("dn: uid=mute,dc=voip,dc=test\nobjectClass: inetOrgPerson\nuid: mute\nsn: Mute\ncn: Without number\n\n");
    let ldif = dir.join("people.ldif");
    std::fs::write(&ldif, people).expect("written");
    let added = quiet("/usr/sbin/slapadd").arg("-f").arg(&configuration).arg("-l").arg(&ldif).status();
    assert!(added.expect("ops/test installs it").success());
    let server = quiet("/usr/sbin/slapd")
        .args(["-h", &format!("ldap://127.0.0.1:{port}"), "-d", "0", "-f"])
        .arg(&configuration)
        .spawn();
    Server(server.expect("ops/test installs it"))
}

#[test]
fn names_and_numbers_of_the_node_a_database_and_a_directory_come_as_phones_read_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let [book, sql, ldap] = [(); 3].map(|()| free_tcp_port());
    let _database = mariadb(dir.path(), sql);
    let _directory = slapd(dir.path(), ldap);
    let password = dir.path().join("password");
    std::fs::write(&password, "Geheim77\n").expect("written");
    let file = password.display();
    let configuration = format!(
        "[speech]\nasr = \"\"\nattendant = \"\"\nmanager = \"\"\nphone_book_seconds = 1\n[phone_book]\nlisten = \"127.0.0.1:{book}\"\nsql = \"mysql://reader@127.0.0.1:{sql}/staff\"\nsql_password_file = \"{file}\"\n\
         sql_query = \"SELECT name, number, mail FROM phone_book\"\nldap = \"ldap://127.0.0.1:{ldap}\"\n\
         ldap_bind = \"cn=admin,dc=voip,dc=test\"\nldap_password_file = \"{file}\"\nldap_base = \"dc=voip,dc=test\"\n"
    );
    let node = Node::start_with(&configuration, &[]);
    let curl = |path: &str| curl(book, &[path, "-m", "30"]);
    // The node's own: the manual's question.
    node.ok("domain/declare voip.test");
    node.route_all("voip.test", "<local/>");
    node.ok("domain/voip.test/sip/user/declare ctx g 10{0-2}@voip.test alias-as-user qop_authentication login-as-user Geheim77");
    node.ok("domain/voip.test/alias/set 101 g 101@voip.test display_name \"Блинов Владислав\"");
    let manual = "/ssw?host=book&user_agent=cisco_search&translit=false&skip_no_disp=true";
    let (status, xml) = curl(manual);
    let blinov = "<DirectoryEntry><Name>Блинов Владислав</Name><Telephone>101</Telephone></DirectoryEntry>";
    assert!(status == 200 && xml.contains(blinov) && !xml.contains(">100<"), "{status} {xml}");
    let (_, all) = curl("/ssw?translit=true&domain=voip.test");
    assert!(all.contains("<Name>Blinov Vladislav</Name>") && all.contains("<Name>100</Name>"), "{all}");
    assert_eq!(curl("/ssw?domain=nowhere").0, 404);
    // The attendant reads it by itself.
    until("the attendant knows the name", || node.ok("node/actor/info speech/book").contains("\"names\": 1"));
    // The database.
    let (status, xml) = curl("/sql?user_agent=yealink&skip_no_disp=true");
    assert!(
        status == 200 && xml.contains("<Name>Казарцев Евгений</Name><Telephone>4819</Telephone>"),
        "{xml}"
    );
    assert!(xml.contains("Лосев &amp; сын") && !xml.contains("4821") && !xml.contains("Без номера"), "{xml}");
    assert!(xml.contains("<YealinkIPPhoneDirectory>"), "{xml}");
    // The directory: pages of it, whole and as a Cisco phone takes them.
    let (status, xml) = curl("/ldap?user_agent=grandstream");
    assert_eq!((status, xml.matches("<Contact>").count()), (200, 600), "{xml}");
    assert!(xml.contains("<phonenumber>5599</phonenumber>") && !xml.contains("Without"), "{xml}");
    let (_, page) = curl("/ldap?user_agent=cisco&search=person%2059");
    assert_eq!(page.matches("<DirectoryEntry>").count(), 10, "{page}");
    let (_, first) = curl("/ldap?user_agent=cisco");
    assert_eq!(first.matches("<DirectoryEntry>").count(), 32, "{first}");
    assert!(first.contains("start=32</URL>"), "{first}");
    // What is wrong is said; no password is.
    assert_eq!(curl("/files").0, 404);
    assert_eq!(curl("/sql?user_agent=toaster").0, 400);
    drop(_database);
    until("what the database said is no longer fresh", || curl("/sql").0 == 502);
    let (_, why) = curl("/sql");
    assert!(
        why.contains("the database") && !why.contains("Geheim77") && !node.log().contains("Geheim77"),
        "{why}"
    );
    assert_eq!(curl("/ldap").0, 200, "one source does not need another");
}
