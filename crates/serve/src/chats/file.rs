//! The file: one table, in which each conversation is a row of its owner.
//!
//! | column | what |
//! |---|---|
//! | `owner` | who wrote it: a name that stands for an API key, or nothing where the server has no keys |
//! | `id`, `version` | its number, and how often it was written |
//! | `title`, `updated`, `body` | what the list shows, and the conversation as JSON |

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use serde::Serialize;
use thiserror::Error;

/// What the file says of itself: "gpts", and the version of its tables.
const APPLICATION: i32 = 0x6770_7473;
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE chats (
        owner TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
        title TEXT NOT NULL, updated TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (owner, id)
    );";

/// How long another process may hold the file.
const PATIENCE: Duration = Duration::from_secs(2);
/// Conversations of an owner, at most, and their bytes.
const MOST_CHATS: i64 = 2000;
const MOST_BYTES: i64 = 256 << 20;

/// Why a history cannot be used.
#[derive(Debug, Error)]
pub enum ChatsError {
    /// The file cannot be made or opened.
    #[error("cannot open the history {path}: {error}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// No database, or a broken one.
    #[error("the history {0} is damaged, or is no database; move it away, or give --history another file")]
    Damaged(PathBuf),
    /// A database, but not ours.
    #[error("{0} is the database of another program; give --history another file")]
    Foreign(PathBuf),
    /// Of another version.
    #[error(
        "the tables of {path} are of version {version}, and this gpt2 knows version {VERSION}; use the newer gpt2, or give \
         --history another file"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i32,
    },
    /// Another process has it.
    #[error("the history {0} is locked by another process; close that, or give --history another file")]
    Busy(PathBuf),
}

/// Why a conversation was not written.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was written by somebody else since.
    Changed,
    /// The owner has as many as there may be, or as large ones.
    Full,
}

/// A conversation of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// Its number.
    pub id: String,
    /// How often it was written.
    pub version: i64,
    /// What it is called.
    pub title: String,
    /// When it was gone on with.
    pub updated: String,
}

/// The file, open.
#[derive(Debug)]
pub struct Chats(Mutex<Connection>);

impl Chats {
    /// Opens a file, or makes one that only its owner may read. What is not ours, or is damaged, is left as it is.
    pub fn open(path: &Path) -> Result<Chats, ChatsError> {
        create(path).map_err(|error| ChatsError::Open { path: path.into(), error: error.to_string() })?;
        let db = prepare(path).map_err(|error| match error {
            Problem::Ours(error) => error,
            Problem::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                    ChatsError::Damaged(path.into())
                }
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ChatsError::Busy(path.into()),
                _ => ChatsError::Open { path: path.into(), error: error.to_string() },
            },
        })?;
        Ok(Chats(Mutex::new(db)))
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        // A panic leaves no transaction open: it is rolled back as it is dropped.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The conversations of an owner, the latest first.
    pub fn list(&self, owner: &str) -> rusqlite::Result<Vec<Head>> {
        let db = self.db();
        let mut query = db.prepare(
            "SELECT id, version, title, updated FROM chats WHERE owner = ?1 ORDER BY updated DESC, id",
        )?;
        let head = |row: &rusqlite::Row| {
            Ok(Head { id: row.get(0)?, version: row.get(1)?, title: row.get(2)?, updated: row.get(3)? })
        };
        query.query_map([owner], head)?.collect()
    }

    /// A conversation's version and its JSON.
    pub fn read(&self, owner: &str, id: &str) -> rusqlite::Result<Option<(i64, String)>> {
        let query = "SELECT version, body FROM chats WHERE owner = ?1 AND id = ?2";
        self.db().query_row(query, [owner, id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    }

    /// Writes a conversation that follows `head.version`, 0 where it is new; gives its version now.
    pub fn write(&self, owner: &str, head: &Head, body: &str) -> rusqlite::Result<Result<i64, Refused>> {
        let mut db = self.db();
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known = "SELECT version FROM chats WHERE owner = ?1 AND id = ?2";
        let known: Option<i64> = tx.query_row(known, [owner, &head.id], |row| row.get(0)).optional()?;
        if known.unwrap_or(0) != head.version {
            return Ok(Err(Refused::Changed));
        }
        let others = "SELECT count(*), coalesce(sum(length(CAST(body AS BLOB))), 0) FROM chats WHERE owner = ?1 AND id <> ?2";
        let (n, bytes): (i64, i64) =
            tx.query_row(others, [owner, &head.id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if n >= MOST_CHATS || bytes.saturating_add(body.len() as i64) > MOST_BYTES {
            return Ok(Err(Refused::Full));
        }
        let version = head.version + 1;
        tx.execute(
            "INSERT INTO chats (owner, id, version, title, updated, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (owner, id) DO UPDATE SET version = ?3, title = ?4, updated = ?5, body = ?6",
            params![owner, head.id, version, head.title, head.updated, body],
        )?;
        tx.commit()?;
        Ok(Ok(version))
    }

    /// Removes a conversation; gives whether there was one.
    pub fn remove(&self, owner: &str, id: &str) -> rusqlite::Result<bool> {
        Ok(self.db().execute("DELETE FROM chats WHERE owner = ?1 AND id = ?2", [owner, id])? > 0)
    }
}

/// Makes the file where there is none.
fn create(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

enum Problem {
    Ours(ChatsError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Problem {
        Problem::Sqlite(error)
    }
}

/// Makes the tables of an empty file; refuses those of others, and looks through ours.
fn prepare(path: &Path) -> Result<Connection, Problem> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(PATIENCE)?;
    db.pragma_update(None, "secure_delete", true)?; // what is deleted does not stay in the file
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |name: &str| tx.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if (application, tables) == (0, 0) {
        tx.execute_batch(TABLES)?;
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", VERSION)?;
    } else if application != APPLICATION {
        return Err(Problem::Ours(ChatsError::Foreign(path.into())));
    } else if version != VERSION {
        return Err(Problem::Ours(ChatsError::Version { path: path.into(), version }));
    } else {
        let found: String = tx.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Problem::Ours(ChatsError::Damaged(path.into())));
        }
    }
    tx.commit()?;
    Ok(db)
}
