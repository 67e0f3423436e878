//! The file of conversations: whose they are, which versions follow each other, and files that are not ours.

use std::path::PathBuf;

use serde_json::json;

use super::chat::{Chat, is_id};
use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("h.sqlite")
    }
}

fn head(id: &str, version: i64, updated: &str) -> Head {
    Head { id: id.into(), version, title: format!("title of {id}"), updated: updated.into() }
}

#[test]
fn conversations_belong_to_who_wrote_them() {
    let folder = Folder::new();
    let chats = Chats::open(&folder.path()).unwrap();
    assert_eq!(chats.write("ann", &head("a", 0, "2"), "{}").unwrap(), Ok(1));
    assert_eq!(chats.write("ann", &head("b", 0, "3"), "[1]").unwrap(), Ok(1));
    // The same number of another owner is another conversation.
    assert_eq!(chats.write("bob", &head("a", 0, "1"), "[2]").unwrap(), Ok(1));
    let ids = |owner| chats.list(owner).unwrap().into_iter().map(|head| head.id).collect::<Vec<_>>();
    assert_eq!(
        (ids("ann"), ids("bob"), ids("")),
        (vec!["b".into(), "a".into()], vec!["a".to_owned()], vec![])
    );
    assert_eq!(chats.read("bob", "a").unwrap(), Some((1, "[2]".into())));
    assert_eq!(chats.read("bob", "b").unwrap(), None);
    assert!(!chats.remove("bob", "b").unwrap());
    assert!(chats.remove("ann", "a").unwrap());
    assert_eq!(chats.read("bob", "a").unwrap(), Some((1, "[2]".into())), "bob's stays");
    // What was written is there when the file is opened again.
    drop(chats);
    assert_eq!(Chats::open(&folder.path()).unwrap().list("ann").unwrap(), [head("b", 1, "3")]);
}

#[test]
fn versions_follow_each_other() {
    let folder = Folder::new();
    let [one, two] = [(); 2].map(|()| Chats::open(&folder.path()).unwrap());
    assert_eq!(one.write("", &head("a", 0, "1"), "first").unwrap(), Ok(1));
    assert_eq!(two.write("", &head("a", 0, "1"), "other").unwrap(), Err(Refused::Changed));
    assert_eq!(two.write("", &head("a", 1, "2"), "second").unwrap(), Ok(2));
    assert_eq!(one.write("", &head("a", 1, "2"), "late").unwrap(), Err(Refused::Changed));
    assert_eq!(one.read("", "a").unwrap(), Some((2, "second".into())));
    assert!(one.remove("", "a").unwrap());
    assert_eq!(two.write("", &head("a", 2, "3"), "gone").unwrap(), Err(Refused::Changed), "it was deleted");
}

#[test]
fn deleted_words_leave_the_file() {
    let folder = Folder::new();
    let chats = Chats::open(&folder.path()).unwrap();
    let secret = "the vixen sleeps at noon ".repeat(400);
    chats.write("", &head("a", 0, "1"), &secret).unwrap().unwrap();
    let holds = || {
        let bytes = std::fs::read(folder.path()).unwrap();
        bytes.windows(9).any(|part| part == b"the vixen")
    };
    assert!(holds());
    chats.remove("", "a").unwrap();
    assert!(!holds());
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let folder = Folder::new();
    let path = folder.path();
    let check = |bytes: Option<&[u8]>, want: &str| {
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        let error = Chats::open(&path).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("--history"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    };
    check(
        Some("no database at all, but a text that is long enough to be looked at".repeat(30).as_bytes()),
        "damaged",
    );
    std::fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
    check(None, "another program");
    std::fs::remove_file(&path).unwrap();
    drop(Chats::open(&path).unwrap());
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 9).unwrap();
    drop(db);
    check(None, "version 9");
}

#[test]
fn a_damaged_file_is_told() {
    let folder = Folder::new();
    let chats = Chats::open(&folder.path()).unwrap();
    for n in 0..40 {
        let text = "x".repeat(3000);
        chats.write("", &head(&n.to_string(), 0, "1"), &text).unwrap().unwrap();
    }
    drop(chats);
    let mut bytes = std::fs::read(folder.path()).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8192].fill(0xff);
    std::fs::write(folder.path(), bytes).unwrap();
    let error = Chats::open(&folder.path()).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    drop(Chats::open(&folder.path()).unwrap());
    let mode = std::fs::metadata(folder.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn conversations_are_checked() {
    let id = "0123456789abcdef0123456789abcdef";
    let whole = json!({
        "id": id, "title": "t", "model": "m", "system": "", "created": "2026-01-31T12:00:00.000Z",
        "updated": "2026-01-31T12:00:00.000Z", "leaf": 1,
        "messages": [{"parent": null, "role": "user", "content": "hi"}, {"parent": 0, "role": "assistant", "content": "", "seconds": 0.5}],
    });
    let check = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = whole.clone();
        change(&mut value);
        match serde_json::from_value::<Chat>(value) {
            Err(error) => Some(error.to_string()),
            Ok(chat) => chat.check(id).err().map(|error| error.param.unwrap()),
        }
    };
    assert_eq!(check(&|_| {}), None);
    type Change = fn(&mut serde_json::Value);
    let changes: [(Change, &str); 9] = [
        (|value| value["id"] = json!("other"), "chat.id"),
        (|value| value["messages"][1]["parent"] = json!(1), "chat.messages[1].parent"),
        (|value| value["messages"][0]["parent"] = json!(-1), "invalid value"),
        (|value| value["messages"][0]["role"] = json!("system"), "unknown variant"),
        (|value| value["messages"][0]["html"] = json!("<b>"), "unknown field"),
        (|value| value["leaf"] = json!(2), "chat.leaf"),
        (|value| value["title"] = json!("x".repeat(201)), "chat.title"),
        (|value| value["updated"] = json!("yesterday"), "chat.updated"),
        (|value| value["messages"] = json!(vec![value["messages"][0].clone(); 5001]), "chat.messages"),
    ];
    for (change, want) in changes {
        let found = check(&change).expect(want);
        assert!(found.contains(want), "{found}, not {want}");
    }
    assert!(is_id(id) && !is_id("0123") && !is_id(&"A".repeat(32)) && !is_id(&"\u{e9}".repeat(16)));
}
