//! Every file of the shelf of shared data that fine-tuning fits is read whole. Skipped where the shelf is not there.

use std::path::PathBuf;

use data::records::{self, Options, Record, Shape};

fn shelf() -> Option<PathBuf> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.."));
    let candidates = [root.join("shared/data"), root.join("../shared/data")];
    let found = candidates.into_iter().find(|dir| dir.join("en/instructions.json").is_file());
    if found.is_none() {
        eprintln!("SKIPPED: there is no ../shared/data, so its files were not read");
    }
    found
}

#[test]
fn every_file_that_fits() {
    let Some(shelf) = shelf() else { return };
    use Shape::{Article, Chat, Instruction, Preference, Prompt, Summary};
    // File, columns, its rows of which shape, records, and conversations whose last turn nobody answers.
    let expected = [
        ("en/instructions.json", "", Instruction, 1100, 1100, 0),
        ("en/preferences.json", "", Preference, 1100, 1094, 0),
        ("en/dialogue-sgd.jsonl.gz", "", Chat, 1715, 1713, 0),
        ("en/summ-scitldr-train.jsonl.gz", "", Summary, 1992, 1992, 0),
        ("en/summ-scitldr-dev.jsonl", "", Summary, 619, 1453, 0),
        ("en/summ-legal.jsonl", "", Summary, 446, 446, 0),
        ("en/news-onestop.jsonl", "", Article, 462, 462, 0),
        ("en/news-wikinews-2020.jsonl", "", Article, 123, 123, 0),
        ("zh/dialogue-crosswoz-test.jsonl", "", Chat, 500, 500, 0),
        ("zh/dialogue-kdconv-test.jsonl.gz", "", Chat, 450, 450, 1),
        ("zh/wiki-cmrc2018-dev.jsonl", "", Article, 848, 846, 0),
        ("multi/dialogue-chatterbot.jsonl", "", Chat, 7607, 7607, 731),
        ("en/sentiment-polarity.tsv", "prompt=2,completion=1", Prompt, 8531, 8531, 0),
        ("mt/tatoeba-eng-cmn.tsv.gz", "prompt=1,completion=2", Prompt, 26233, 26233, 0),
        ("multi/tatoeba-en-pairs.tsv.gz", "prompt=2,completion=3", Prompt, 80030, 80030, 0),
    ];
    let mut wrong = Vec::new();
    for (name, columns, shape, rows, records, left_off) in expected {
        let mut options = Options::default();
        if !columns.is_empty() {
            options.columns = columns.parse().unwrap();
        }
        let file = records::read(&shelf.join(name), &options).unwrap_or_else(|error| panic!("{error}"));
        let found = file.records.len();
        let shapes: Vec<(Shape, usize)> = file.shapes.into_iter().collect();
        let dropped: Vec<String> = file.dropped.lines().collect();
        if (shapes.as_slice(), found, file.left_off) != (&[(shape, rows)], records, left_off) {
            wrong.push(format!(
                "{name}: {shapes:?}, {found} records, {} left off; {dropped:?}",
                file.left_off
            ));
        }
        for (line, record) in &file.records {
            let turns = match record {
                Record::Conversation(conversation) => &conversation.messages,
                Record::Choice([chosen, _]) => chosen,
            };
            assert_eq!(turns.last().unwrap().role, "assistant", "{name}: line {line}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_of_other_shapes_are_refused_with_their_line() {
    let Some(shelf) = shelf() else { return };
    for (name, says) in [
        ("en/lambada_test.jsonl", "gpt2 train"),
        ("edge/edge-cases.jsonl", "gpt2 train"),
        ("multi/udhr.jsonl.gz", "`preamble`"),
        ("edge/invalid-utf8.bin", "read from .jsonl"),
        ("zh/novel-sanguo.txt", "gpt2 train"),
    ] {
        let error = records::read(&shelf.join(name), &Options::default()).unwrap_err().to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
}
