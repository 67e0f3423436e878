//! `--columns prompt=question,completion=answer`: which of a file's fields is which of ours.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::RecordError;
use super::shapes::FIELDS;
use crate::{DataError, Result};

/// Our names of fields, and those of the file: names, or numbers from 1 in tables without a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(BTreeMap<String, String>);

impl std::str::FromStr for Columns {
    type Err = DataError;

    fn from_str(spec: &str) -> Result<Columns> {
        let refuse = |reason: String| Err(DataError::Columns { spec: spec.to_owned(), reason });
        let mut columns = BTreeMap::new();
        for part in spec.split(',') {
            let Some((ours, theirs)) = part.split_once('=') else {
                return refuse(format!("`{part}` is not NAME=COLUMN"));
            };
            let (ours, theirs) = (ours.trim(), theirs.trim());
            if !FIELDS.contains(&ours) {
                return refuse(format!("`{ours}` is none of {}", FIELDS.join(", ")));
            }
            if theirs.is_empty() || theirs == "0" {
                return refuse(format!("`{ours}` needs the name of a column, or its number from 1"));
            }
            if columns.insert(ours.to_owned(), theirs.to_owned()).is_some() {
                return refuse(format!("`{ours}` is there twice"));
            }
        }
        let numbers = columns.values().filter(|theirs| is_number(theirs)).count();
        if numbers > 0 && numbers < columns.len() {
            return refuse(
                "a table has a header, and columns have names, or it has none, and all have numbers".into(),
            );
        }
        Ok(Columns(columns))
    }
}

impl Columns {
    /// Whether none are named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a column of a table with a header is one that is read.
    pub fn may_be(&self, theirs: &str) -> bool {
        if self.is_empty() { FIELDS.contains(&theirs) } else { self.0.values().any(|name| name == theirs) }
    }

    /// Whether columns have numbers: then tables have no header.
    pub fn are_numbers(&self) -> bool {
        self.0.values().next().is_some_and(|theirs| is_number(theirs))
    }

    /// The fields under our names. Those that are not named are left out, so that they tell no other shape.
    pub fn rename(&self, row: &Map<String, Value>) -> std::result::Result<Map<String, Value>, RecordError> {
        let missing: Vec<&String> = self.0.values().filter(|theirs| !row.contains_key(*theirs)).collect();
        if !missing.is_empty() {
            return Err(RecordError::Columns {
                missing: quoted(missing.into_iter()),
                found: quoted(row.keys()),
            });
        }
        Ok(self.0.iter().map(|(ours, theirs)| (ours.clone(), row[theirs].clone())).collect())
    }
}

fn is_number(name: &str) -> bool {
    name.parse::<usize>().is_ok()
}

/// Names as they are said in messages; of very many only the first.
pub fn quoted<'a>(names: impl Iterator<Item = &'a String>) -> String {
    const MOST: usize = 12;
    const LONGEST: usize = 40;
    let names: Vec<&String> = names.collect();
    let said = names.iter().take(MOST).map(|name| match name.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("`{}…`", &name[..cut]),
        None => format!("`{name}`"),
    });
    let mut said = said.collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        said += &format!(" and {} more", names.len() - MOST);
    }
    if said.is_empty() { "none".into() } else { said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let columns: Columns = "prompt=question, completion=answer".parse().unwrap();
        assert!(!columns.are_numbers() && !columns.is_empty());
        assert!("text=2,summary=3".parse::<Columns>().unwrap().are_numbers());
        for (bad, says) in [
            ("prompt", "NAME=COLUMN"),
            ("promt=a", "`promt` is none of"),
            ("prompt=", "name of a column"),
            ("prompt=0", "from 1"),
            ("prompt=a,prompt=b", "twice"),
            ("prompt=1,completion=answer", "all have numbers"),
        ] {
            let error = bad.parse::<Columns>().unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
