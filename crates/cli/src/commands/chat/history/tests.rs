//! The file of conversations: what is written comes back, and damage is told.

use super::*;

fn turn(user: &str, answer: &str) -> Turn {
    Turn { user: user.into(), answer: answer.into(), finish: Finish::Stop }
}

fn head() -> Head<'static> {
    Head { model: "m", persona: Some("support"), settings: "{\"seed\":1}".into() }
}

fn say(history: &mut History, conversation: &mut Conversation, turns: &[Turn]) {
    for turn in turns {
        history.changed_from(conversation.turns().len());
        conversation.turns_mut().push(turn.clone());
        history.record(&head(), conversation).unwrap();
    }
}

fn turns_of(history: &mut History, id: i64) -> Vec<Turn> {
    history.reopen(id).unwrap().0.turns().to_vec()
}

#[test]
fn conversations_are_kept_listed_and_reopened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folder/h.sqlite");
    let mut history = History::open(&path).unwrap();
    assert!(history.list(9).unwrap().is_empty());
    let mut first = Conversation::new(Some("Be brief.".into()));
    let cut = Turn { finish: Finish::Cancelled, ..turn("再见", "再") };
    say(&mut history, &mut first, &[turn("你好", "你好！"), cut.clone()]);
    history.begin();
    say(&mut history, &mut Conversation::new(None), &[turn("a\nb", "")]);

    let mut again = History::open(&path).unwrap();
    let list = again.list(9).unwrap();
    let told: Vec<_> = list.iter().map(|e| (e.id, e.turns, e.first.as_str(), e.model.as_str())).collect();
    assert_eq!(told, [(2, 1, "a\nb", "m"), (1, 2, "你好", "m")]);
    assert_eq!(again.list(1).unwrap().len(), 1);
    assert_eq!(again.messages(2).unwrap(), ["再见", "a\nb"]);
    assert_eq!(again.reopen(1).unwrap(), (first, "m".into()));
    assert!(again.reopen(3).unwrap_err().to_string().contains("no conversation 3"));
}

#[test]
fn turns_taken_back_and_answered_anew_are_as_in_the_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.sqlite");
    let (mut history, mut conversation) = (History::open(&path).unwrap(), Conversation::new(None));
    say(&mut history, &mut conversation, &[turn("1", "a"), turn("2", "b"), turn("3", "c")]);
    conversation.turns_mut().truncate(1);
    history.changed_from(1);
    history.record(&head(), &conversation).unwrap();
    say(&mut history, &mut conversation, &[turn("2", "d")]);
    let mut reader = History::open(&path).unwrap();
    assert_eq!(turns_of(&mut reader, 1), conversation.turns());
    conversation.turns_mut().clear();
    history.changed_from(0);
    history.record(&head(), &conversation).unwrap();
    assert!(reader.list(9).unwrap().is_empty());
    // It begins again as another one.
    say(&mut history, &mut conversation, &[turn("4", "e")]);
    assert_eq!(reader.list(9).unwrap().len(), 1);
}

#[test]
fn two_that_go_on_with_one_conversation_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.sqlite");
    let mut one = History::open(&path).unwrap();
    let mut said = Conversation::new(None);
    say(&mut one, &mut said, &[turn("1", "a")]);
    let mut two = History::open(&path).unwrap();
    let mut other = two.reopen(1).unwrap().0;
    say(&mut one, &mut said, &[turn("2", "b")]);
    say(&mut two, &mut other, &[turn("3", "c")]);
    let all: Vec<_> = two.list(9).unwrap().iter().map(|entry| entry.id).collect();
    assert_eq!(all.len(), 2);
    assert_eq!(turns_of(&mut two, 1), [turn("1", "a"), turn("2", "b")]);
    assert_eq!(turns_of(&mut two, 2), [turn("1", "a"), turn("3", "c")]);
}

#[test]
fn what_is_no_history_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let error = |path: &Path| format!("{:#}", History::open(path).unwrap_err());
    std::fs::write(
        &path,
        "my notes, which are long enough to look like the header of a database: ".repeat(99),
    )
    .unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(error(&path).contains("is damaged, or is no database"), "{}", error(&path));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(error(folder.path()).contains("cannot open"));
    assert!(error(&path.join("below/a/file")).contains("cannot make"));

    let other = folder.path().join("other");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE bookmarks (url)").unwrap();
    assert!(error(&other).contains("of another program"));
    let newer = folder.path().join("newer");
    History::open(&newer).unwrap().db.pragma_update(None, "user_version", 7).unwrap();
    assert!(error(&newer).contains("version 7"));
}

#[test]
fn damage_after_opening_is_an_error_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.sqlite");
    let mut history = History::open(&path).unwrap();
    let long = turn(&"很长".repeat(5000), "x");
    say(&mut history, &mut Conversation::new(None), &[long.clone(), long.clone(), long]);
    drop(history);
    let whole = std::fs::read(&path).unwrap();
    for cut in (0..whole.len()).step_by(511) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        // Cut to nothing, it is an empty file: a new history.
        if let Ok(mut history) = History::open(&path) {
            _ = history.list(9).and_then(|_| history.messages(9)).and_then(|_| history.reopen(1));
            _ = history.record(&head(), &Conversation::new(None));
        }
        let mut bytes = whole.clone();
        bytes[cut..].iter_mut().take(60).for_each(|byte| *byte = !*byte);
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(mut history) = History::open(&path) {
            _ = history.list(9).and_then(|_| history.messages(9)).and_then(|_| history.reopen(1));
        }
    }
}

#[test]
fn a_file_that_another_process_holds_is_waited_for_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.sqlite");
    let (mut history, mut conversation) = (History::open(&path).unwrap(), Conversation::new(None));
    history.db.busy_timeout(Duration::ZERO).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    conversation.turns_mut().push(turn("1", "a"));
    let error = history.record(&head(), &conversation).unwrap_err();
    assert!(is_busy(&error), "{error:#}");
    other.execute_batch("COMMIT").unwrap();
    say(&mut history, &mut conversation, &[turn("2", "b")]);
    assert_eq!(turns_of(&mut history, 1), conversation.turns(), "the turn before came, too");
}

#[cfg(unix)]
#[test]
fn only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("h.sqlite");
    say(&mut History::open(&path).unwrap(), &mut Conversation::new(None), &[turn("1", "a")]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}
