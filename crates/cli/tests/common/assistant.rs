//! A model that has learnt a conversation by heart.

use std::sync::OnceLock;

use super::Folder;

/// What it has learnt: questions, and their answers.
pub const TALK: [(&str, &str); 4] =
    [("hello", "good morning"), ("who are you", "a red fox"), ("你好", "早上好"), ("你是谁", "一只狐狸")];

/// The files of its folder.
static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();

/// Puts it into `m`: with temperature 0 it answers each first message as it has learnt. Its texts are in `talk.jsonl`. It is
/// trained for the first test that wants it.
pub fn train(folder: &Folder) {
    let files = FILES.get_or_init(trained);
    std::fs::create_dir(folder.path("m")).unwrap();
    files.iter().for_each(|(name, bytes)| folder.write(name, bytes));
}

fn trained() -> Vec<(String, Vec<u8>)> {
    let folder = Folder::new();
    // As the plain template writes turns: the first one, and those that follow the end of an answer.
    let line = |before: &str, q: &str, a: &str| {
        serde_json::json!({ "text": format!("{before}User: {q}\nAssistant: {a}") }).to_string() + "\n"
    };
    let turns: String = TALK.iter().map(|(q, a)| line("", q, a) + &line("\n", q, a)).collect();
    folder.write("talk.jsonl", turns.repeat(30));
    folder.succeeds(
        "train --data talk.jsonl --val-fraction 0 --tokenizer bpe:300 --n-layer 2 --n-head 2 --n-embd 48 --n-ctx 128 --batch 8 --seed 3 \
         --lr 0.01 --max-steps 150 --out m",
    );
    let in_m = std::fs::read_dir(folder.path("m")).unwrap().map(|entry| entry.unwrap());
    let in_m = in_m.filter(|entry| entry.path().is_file());
    let names = in_m.map(|entry| format!("m/{}", entry.file_name().to_str().unwrap()));
    let names: Vec<String> = names.chain(["talk.jsonl".to_owned()]).collect();
    names.into_iter().map(|name| (name.clone(), std::fs::read(folder.path(&name)).unwrap())).collect()
}

/// Flags of a chat with it that is the same each time.
pub const CHAT: &str = "chat -m m --temperature 0 --history h.sqlite --seed 1";
