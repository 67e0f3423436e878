//! `gpt2 chat` in a terminal: typing, streaming, commands, interruptions. Unix only.
#![cfg(unix)]

mod common;

use common::Folder;
use common::assistant::{CHAT, train};
use common::terminal::{ALT_ENTER, CTRL_C, CTRL_D, Terminal, UP};

fn assistant() -> Folder {
    let folder = Folder::new();
    train(&folder);
    folder
}

#[test]
fn a_conversation_with_commands() {
    let folder = assistant();
    let mut terminal = Terminal::start(&folder, CHAT, 100);
    terminal.wait_for("has no chat template");
    terminal.wait_for("/help lists the commands");
    assert_eq!(terminal.say("hello"), ["> hello", "good morning"]);
    assert_eq!(terminal.say("你好"), ["> 你好", "早上好"]);
    let show = ["> /show", "> hello", "good morning", "", "> 你好", "早上好"];
    assert_eq!(terminal.say("/show"), show);
    assert_eq!(terminal.say("/undo"), ["> /undo", "taken back: 你好"]);
    assert_eq!(terminal.say("/retry"), ["> /retry", "good morning"]);
    assert!(terminal.say("/tokens").iter().any(|row| row.contains("of 128 tokens")));
    // Settings, and nonsense.
    assert_eq!(terminal.say("/set temperature 0.5"), ["> /set temperature 0.5"]);
    assert!(terminal.say("/set").contains(&"temperature     0.5".to_owned()));
    assert!(terminal.say("/set temperature hot")[1].contains("/set temperature hot: invalid float"));
    assert!(terminal.say("/set tempratur 1")[1].contains("did you mean temperature?"));
    terminal.say("/set temperature 0");
    assert!(terminal.say("/hlep")[1].contains("no command /hlep; did you mean /help?"));
    assert!(terminal.say("/help").iter().any(|row| row.starts_with("/retry")));
    // System prompts.
    assert_eq!(terminal.say("/system"), ["> /system", "no system prompt"]);
    assert_eq!(terminal.say("/system a red fox"), ["> /system a red fox", "a red fox"]);
    assert!(terminal.say("/persona").iter().any(|row| row.starts_with("companion")));
    assert!(terminal.say("/persona consult")[1].starts_with("You are a consultant."));
    assert!(terminal.say("/persona nobody")[1].contains("no persona `nobody`"));
    let full = terminal.say("who are you").join(" ");
    assert!(full.contains("context is 128"), "the persona fills the context: {full}");
    assert_eq!(terminal.say("/system none"), ["> /system none", "no system prompt"]);
    assert_eq!(terminal.say("//hello").len(), 2);
    assert_eq!(terminal.say("/new"), ["> /new", "a new conversation"]);
    assert_eq!(terminal.say("/retry")[1], "there is no message to answer again");
    assert_eq!(terminal.say("/undo")[1], "there is nothing to take back");
    assert!(terminal.say("/model")[1].starts_with("m: 0.1 M parameters, context 128, the plain template"));
    // Tab completes.
    assert_eq!(terminal.say("/mod\t")[0], "> /model");
    assert_eq!(terminal.say("/set top\tk 3")[0], "> /set top_k 3");
    terminal.wait_for_prompt();
    terminal.send("/quit\r");
    terminal.end();
}

#[test]
fn conversations_are_saved_and_loaded() {
    let folder = assistant();
    let mut terminal = Terminal::start(&folder, CHAT, 100);
    assert_eq!(terminal.say("/save a.jsonl")[1], "nothing was said yet");
    terminal.say("hello");
    assert_eq!(terminal.say("/save a.jsonl")[1], "1 turns are in a.jsonl");
    terminal.say("你好");
    assert_eq!(
        terminal.say("/save a.jsonl")[1],
        "2 turns are in a.jsonl",
        "its own file may be written over"
    );
    terminal.say("/save b.json");
    assert_eq!(
        folder.read("a.jsonl"),
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"},{\"role\":\"assistant\",\"content\":\"good morning\"},\
         {\"role\":\"user\",\"content\":\"你好\"},{\"role\":\"assistant\",\"content\":\"早上好\"}]}\n"
    );
    folder.write("mine.txt", "my notes");
    assert!(terminal.say("/save mine.txt")[1].contains("is there already; /save! mine.txt"));
    assert_eq!(folder.read("mine.txt"), "my notes");
    assert_eq!(terminal.say("/save! mine.txt")[1], "2 turns are in mine.txt");
    assert!(terminal.say("/save no/where.json")[1].contains("cannot write no/where.json"));
    terminal.say("/new");
    for file in ["a.jsonl", "b.json", "mine.txt"] {
        assert_eq!(terminal.say(&format!("/load {file}"))[1], format!("2 turns from {file}"));
        assert_eq!(terminal.say("/show")[4..], ["> 你好", "早上好"]);
    }
    assert_eq!(terminal.say("/retry"), ["> /retry", "早上好"]);
    // What cannot be loaded leaves the conversation as it is.
    folder.write("bad.json", "{\"messages\": [");
    folder.write("order.json", r#"[{"role":"user","content":"a"},{"role":"user","content":"b"}]"#);
    folder.write("empty.json", r#"[{"role":"user","content":""}]"#);
    folder.write("latin.json", b"\xff\xfe");
    for (file, part) in [
        ("none.json", "cannot read none.json"),
        ("bad.json", "in bad.json: line 1 is not JSON"),
        ("order.json", "message 2 has the role `user` where `assistant` was expected"),
        ("empty.json", "message 1 (user) is empty"),
        ("latin.json", "not UTF-8 at byte 0"),
        ("m", "cannot read m"),
    ] {
        let rows = terminal.say(&format!("/load {file}")).join(" ");
        assert!(rows.contains(part), "{file}: {rows}");
    }
    assert_eq!(terminal.say("/show")[4..], ["> 你好", "早上好"]);
    folder.write("open.json", r#"[{"role":"user","content":"hello"}]"#);
    assert!(terminal.say("/load open.json")[1].contains("/retry answers it"));
    assert_eq!(terminal.say("/retry"), ["> /retry", "good morning"]);
    terminal.send(CTRL_D);
    terminal.end();
}

#[test]
fn several_lines_are_one_message() {
    let folder = assistant();
    let mut terminal = Terminal::start(&folder, CHAT, 100);
    let message = |terminal: &mut Terminal| {
        let rows = terminal.say("/show");
        terminal.say("/new");
        rows[1..3].to_vec()
    };
    for keys in [
        format!("who are{ALT_ENTER}you"),
        "who are\\\ryou".into(),
        "\"\"\"\rwho are\ryou\r\"\"\"".into(),
        "\x1b[200~who are\ryou\x1b[201~".into(), // pasted
    ] {
        terminal.say(&keys);
        assert_eq!(message(&mut terminal), ["> who are", "you"], "{keys:?}");
    }
    // In quotes, a command is a message.
    terminal.say("\"\"\"/quit\ryou\"\"\"");
    assert_eq!(message(&mut terminal), ["> /quit", "you"]);
    terminal.send(CTRL_D);
    terminal.end();
}

#[test]
fn chinese_is_edited_by_whole_characters() {
    let folder = assistant();
    for columns in [100, 7] {
        let mut terminal = Terminal::start(&folder, CHAT, columns);
        terminal.wait_for_prompt();
        // 你好们, back over 们, then to the front and a character before 你, which is deleted again.
        let rows = terminal.say("你好们\x7f\x01早\x7f");
        assert_eq!(rows, ["> 你好", "早上好"], "{columns} columns");
        terminal.send(CTRL_D);
        terminal.end();
    }
}

#[test]
fn ctrl_c_ends_a_reply_and_not_the_chat() {
    let folder = assistant();
    // Its replies are as long as can be: it may end neither a line nor a text.
    folder.write("long.txt", "User: hello\nAssistant: good morning, 早上好\n".repeat(500));
    folder.succeeds(
        "train --data long.txt --tokenizer char --n-layer 2 --n-head 2 --n-embd 64 --n-ctx 8192 --batch 1 --max-steps 1 \
         --val-fraction 0 --out long",
    );
    let config: serde_json::Value = serde_json::from_str(&folder.read("long/config.json")).unwrap();
    let eot = config["eos_token_id"].as_u64().unwrap();
    let endless =
        format!("chat -m long --history h.sqlite -n 8000 --logit-bias {eot}=-inf --logit-bias 0=-inf");
    let mut terminal = Terminal::start(&folder, &endless, 60);
    terminal.wait_for_prompt();
    terminal.send("hello\r");
    terminal.wait("a piece of the reply", |terminal| {
        terminal.rows().iter().skip_while(|row| *row != "> hello").nth(1).is_some_and(|row| row.len() > 3)
    });
    terminal.send(CTRL_C);
    terminal.wait_for("[interrupted; the part that was said stays]");
    terminal.wait_for_prompt();
    let rows = terminal.say("/show");
    assert!(rows.last().unwrap().ends_with("[interrupted]"), "{rows:?}");
    assert!(terminal.say("/tokens").iter().any(|row| row.contains("turns: 1")));
    // On a line, it drops the line; on an empty one, it says how to leave.
    terminal.send(CTRL_C);
    terminal.wait_for("/quit or Ctrl-D leaves");
    terminal.wait_for_prompt();
    terminal.send("not to be said");
    terminal.wait_for("> not to be said");
    terminal.send(CTRL_C);
    terminal.wait_for_prompt();
    assert!(terminal.say("/tokens").iter().any(|row| row.contains("turns: 1")));
    terminal.send(CTRL_D);
    terminal.end();
    let kept = rusqlite::Connection::open(folder.path("h.sqlite")).unwrap();
    let finish: String =
        kept.query_row("SELECT finish FROM messages WHERE role = 'assistant'", [], |row| row.get(0)).unwrap();
    assert_eq!(finish, "cancelled");
}

#[test]
fn the_history_goes_on_in_another_session() {
    let folder = assistant();
    let mut terminal = Terminal::start(&folder, CHAT, 100);
    assert_eq!(terminal.say("/history")[1], "no conversation is kept yet");
    terminal.say("who are you");
    terminal.say("/new");
    terminal.say("你好");
    // A killed process loses nothing that was said.
    let id = terminal.process().id().to_string();
    assert!(std::process::Command::new("kill").args(["-KILL", &id]).status().unwrap().success());
    drop(terminal);

    let mut terminal = Terminal::start(&folder, CHAT, 38);
    terminal.wait_for_prompt();
    let rows = terminal.say("/history");
    assert!(rows[1].contains("1 turn: 你好") && rows[2].contains("1 turn: w"), "{rows:?}");
    assert!(rows[2].ends_with('…'), "what is too wide is cut: {rows:?}");
    assert_eq!(terminal.say("/history 1"), ["> /history 1", "> who are you", "a red fox"]);
    terminal.send(UP); // its own commands first, then what was said in earlier sessions
    terminal.wait_for("> /history 1");
    terminal.send(UP);
    terminal.send(UP);
    terminal
        .wait("the earlier message", |terminal| terminal.rows().last().is_some_and(|row| row == "> 你好"));
    terminal.send("\r");
    terminal.wait_for_prompt();
    assert_eq!(terminal.say("/history 1").len(), 6, "the conversation has grown");
    assert!(terminal.say("/history 7")[1].contains("no conversation 7"));
    assert!(terminal.say("/history one").join(" ").contains("a number of the list"));
    terminal.say("/undo");
    terminal.say("/undo");
    assert_eq!(terminal.say("/history").len(), 3, "one is left, and how to reopen it");
    terminal.send(CTRL_D);
    terminal.end();

    let mut terminal = Terminal::start(&folder, "chat -m m --temperature 0 --no-history", 100);
    assert_eq!(terminal.say("/history")[1], "conversations are not kept");
    terminal.send(CTRL_D);
    terminal.end();
}

#[test]
fn without_colours_there_are_none() {
    let folder = assistant();
    for (no_color, want) in [("", true), ("1", false)] {
        let script = format!("NO_COLOR={no_color} TERM=xterm exec {} {CHAT}", env!("CARGO_BIN_EXE_gpt2"));
        let (pty, pts) = pty_process::blocking::open().unwrap();
        let command = pty_process::blocking::Command::new("sh").args(["-c", &script]);
        let mut child = command.current_dir(folder.path("")).spawn(pts).unwrap();
        std::io::Write::write_all(&mut &pty, b"/quit\r").unwrap();
        let mut bytes = Vec::new();
        _ = std::io::Read::read_to_end(&mut &pty, &mut bytes); // an error at the end, on Linux
        assert!(child.wait().unwrap().success());
        assert_eq!(String::from_utf8_lossy(&bytes).contains("\x1b[2m"), want);
    }
}

#[test]
fn a_constraint_is_taken_off_and_put_on_again() {
    let folder = assistant();
    folder.write("yes.lark", "start: \"yes!\" | \"也许\"\n");
    let mut terminal = Terminal::start(&folder, &format!("{CHAT} --grammar yes.lark"), 100);
    let held = terminal.say("hello")[1].clone();
    assert!(["yes!", "也许"].contains(&&*held), "{held}");
    assert_eq!(terminal.say("/set constraint off"), ["> /set constraint off"]);
    assert_eq!(terminal.say("/retry"), ["> /retry", "good morning"]);
    assert!(terminal.say("/set constraint maybe")[1].contains("say on or off"));
    assert_eq!(terminal.say("/set constraint on"), ["> /set constraint on"]);
    assert!(terminal.say("/set").contains(&"constraint      true".to_owned()));
    assert_eq!(terminal.say("/retry")[1], held);
    terminal.wait_for_prompt();
    terminal.send(CTRL_D);
    terminal.end();
}
