//! Conversations in a local SQLite file, written after each turn: a killed process loses at most the turn being said.
//!
//! | table | columns |
//! |---|---|
//! | `conversations` | `id`, `started`, `updated` (UTC, ISO 8601), `model`, `persona`, `system`, `settings` (JSON) |
//! | `messages` | `conversation`, `position` (from 0), `role`, `content`, `finish` (of answers), `at` (UTC) |

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcetera::BaseStrategy;
use generate::Finish;
use generate::apps::chat::{Conversation, Turn};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

/// What the file says of itself: "gpt2", and the version of its tables.
const APPLICATION: i32 = 0x6770_7432;
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE conversations (
        id INTEGER PRIMARY KEY, started TEXT NOT NULL, updated TEXT NOT NULL,
        model TEXT NOT NULL, persona TEXT, system TEXT, settings TEXT NOT NULL
    );
    CREATE TABLE messages (
        conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE, position INTEGER NOT NULL,
        role TEXT NOT NULL, content TEXT NOT NULL, finish TEXT, at TEXT NOT NULL,
        PRIMARY KEY (conversation, position)
    );";

/// How long another process may hold the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// The file, and what of the present conversation it holds.
#[derive(Debug)]
pub struct History {
    db: Connection,
    id: Option<i64>,
    /// Turns in the file, and how many of them are as they are in the conversation.
    stored: usize,
    same: usize,
}

/// What is kept of a conversation besides its turns.
pub struct Head<'a> {
    pub model: &'a str,
    pub persona: Option<&'a str>,
    pub settings: String,
}

/// A conversation of the list.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: i64,
    /// When its last turn was said, in local time.
    pub updated: String,
    pub model: String,
    pub turns: usize,
    /// What the user said first.
    pub first: String,
}

/// Where histories are kept if nothing is said: as the platform has it.
pub fn default_path() -> Result<PathBuf> {
    let platform = etcetera::base_strategy::choose_native_strategy().context("no home directory is known")?;
    Ok(platform.data_dir().join("gpt2").join("chats.sqlite"))
}

impl History {
    /// Opens a file, or makes one that only its owner may read.
    pub fn open(path: &Path) -> Result<History> {
        if !path.exists() {
            create(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let mut db = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        db.busy_timeout(PATIENCE)?;
        db.pragma_update(None, "foreign_keys", true)?;
        prepare(&mut db).map_err(|error| explain(error, path))?;
        Ok(History { db, id: None, stored: 0, same: 0 })
    }

    /// The turns from this one on are not what the file holds.
    pub fn changed_from(&mut self, turn: usize) {
        self.same = self.same.min(turn);
    }

    /// From now on another conversation is kept.
    pub fn begin(&mut self) {
        (self.id, self.stored, self.same) = (None, 0, 0);
    }

    /// Writes what is new. If another process has gone on with this conversation, both are kept.
    pub fn record(&mut self, head: &Head, conversation: &Conversation) -> Result<()> {
        let turns = conversation.turns();
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(id) = self.id {
            let count: Option<i64> = tx
                .query_row(
                    "SELECT (SELECT count(*) FROM messages WHERE conversation = id) FROM conversations WHERE id = ?1",
                    [id],
                    |row| row.get(0),
                )
                .optional()?;
            if count != Some(2 * self.stored as i64) {
                (self.id, self.same) = (None, 0);
            }
        }
        let id = write(&tx, self.id, self.same, head, conversation)?;
        tx.commit()?;
        (self.id, self.stored, self.same) = (id, turns.len(), turns.len());
        Ok(())
    }

    /// The latest conversations, the last one first.
    pub fn list(&self, most: usize) -> Result<Vec<Entry>> {
        let mut query = self.db.prepare(
            "SELECT id, strftime('%Y-%m-%d %H:%M', updated, 'localtime'), model,
                (SELECT count(*) FROM messages WHERE conversation = id) / 2,
                coalesce((SELECT content FROM messages WHERE conversation = id AND position = 0), '')
             FROM conversations ORDER BY updated DESC, id DESC LIMIT ?1",
        )?;
        let rows = query.query_map([most as i64], |row| {
            let turns: i64 = row.get(3)?;
            let turns = usize::try_from(turns).unwrap_or(0);
            Ok(Entry { id: row.get(0)?, updated: row.get(1)?, model: row.get(2)?, turns, first: row.get(4)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// An earlier conversation and the model it was held with; it is gone on with from now on.
    pub fn reopen(&mut self, id: i64) -> Result<(Conversation, String)> {
        let head = "SELECT system, model FROM conversations WHERE id = ?1";
        let head = self.db.query_row(head, [id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (system, model): (Option<String>, String) =
            head.with_context(|| format!("there is no conversation {id}; /history lists them"))?;
        let mut query = self.db.prepare(
            "SELECT a.content, b.content, b.finish FROM messages a JOIN messages b
                ON b.conversation = a.conversation AND b.position = a.position + 1
             WHERE a.conversation = ?1 AND a.role = 'user' AND b.role = 'assistant' ORDER BY a.position",
        )?;
        let rows = query.query_map([id], |row| {
            let finish: Option<String> = row.get(2)?;
            Ok(Turn { user: row.get(0)?, answer: row.get(1)?, finish: finish_of(finish.as_deref()) })
        })?;
        let mut conversation = Conversation::new(system);
        *conversation.turns_mut() = rows.collect::<Result<_, _>>()?;
        drop(query);
        let turns = conversation.turns().len();
        (self.id, self.stored, self.same) = (Some(id), turns, turns);
        Ok((conversation, model))
    }

    /// What users said last, the oldest first.
    pub fn messages(&self, most: usize) -> Result<Vec<String>> {
        let mut query = self.db.prepare(
            "SELECT content FROM messages WHERE role = 'user' ORDER BY at DESC, rowid DESC LIMIT ?1",
        )?;
        let rows = query.query_map([most as i64], |row| row.get(0))?;
        let mut messages: Vec<String> = rows.collect::<Result<_, _>>()?;
        messages.reverse();
        Ok(messages)
    }
}

/// Whether another process held the file for too long: it may be free the next time.
pub fn is_busy(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn create(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        // Another process was quicker.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        opened => opened.map(drop),
    }
}

/// Makes the tables of an empty file, and refuses those of others.
fn prepare(db: &mut Connection) -> Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |name: &str| tx.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (application, tables) == (0, 0) {
        tx.execute_batch(TABLES)?;
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", VERSION)?;
    } else {
        ensure!(
            application == APPLICATION,
            "it is the database of another program; give --history another file"
        );
        ensure!(
            version == VERSION,
            "its tables are of version {version}, this gpt2 knows version {VERSION}; use the newer gpt2, or give \
             --history another file"
        );
    }
    Ok(tx.commit()?)
}

/// The error of opening, with what to do.
fn explain(error: anyhow::Error, path: &Path) -> anyhow::Error {
    let code = error.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code);
    let what = match code {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "is damaged, or is no database; move it away, or give --history another file"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "is locked by another process; close that, or give --history another file"
        }
        _ => "cannot be used",
    };
    error.context(format!("{} {what}", path.display()))
}

const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')";

/// Writes the turns from `same` on, and what stands above them. A conversation without turns is none.
fn write(
    tx: &Transaction,
    id: Option<i64>,
    same: usize,
    head: &Head,
    conversation: &Conversation,
) -> Result<Option<i64>> {
    let turns = conversation.turns();
    if turns.is_empty() {
        if let Some(id) = id {
            tx.execute("DELETE FROM conversations WHERE id = ?1", [id])?;
        }
        return Ok(None);
    }
    let Head { model, persona, settings } = head;
    let head = params![id, model, persona, conversation.system(), settings];
    let upsert = format!(
        "INSERT INTO conversations (id, started, updated, model, persona, system, settings)
            VALUES (?1, {NOW}, {NOW}, ?2, ?3, ?4, ?5)
         ON CONFLICT (id) DO UPDATE SET updated = {NOW}, model = ?2, persona = ?3, system = ?4, settings = ?5
         RETURNING id"
    );
    let id: i64 = tx.query_row(&upsert, head, |row| row.get(0))?;
    tx.execute("DELETE FROM messages WHERE conversation = ?1 AND position >= ?2", [id, 2 * same as i64])?;
    let mut insert = tx.prepare(&format!(
        "INSERT INTO messages (conversation, position, role, content, finish, at) VALUES (?1, ?2, ?3, ?4, ?5, {NOW})"
    ))?;
    for (i, turn) in turns.iter().enumerate().skip(same) {
        let position = 2 * i as i64;
        insert.execute(params![id, position, "user", turn.user, None::<&str>])?;
        insert.execute(params![id, position + 1, "assistant", turn.answer, turn.finish.as_str()])?;
    }
    Ok(Some(id))
}

fn finish_of(name: Option<&str>) -> Finish {
    let all = [Finish::Eot, Finish::Stop, Finish::Length, Finish::Context, Finish::Cancelled];
    all.into_iter().find(|finish| Some(finish.as_str()) == name).unwrap_or_default()
}

#[cfg(test)]
mod tests;
