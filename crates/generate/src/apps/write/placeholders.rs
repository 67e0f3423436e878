//! Texts with places to fill: `{topic}`, an input or an earlier step's result by its name; `{{` and `}}` are braces.

use std::collections::BTreeMap;

/// A text with places to fill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(String),
}

impl Template {
    /// Reads a text. The error says what is wrong with its braces.
    pub fn parse(text: &str) -> Result<Template, String> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain += &rest[..at];
            let (brace, after) = (&rest[at..=at], &rest[at + 1..]);
            if let Some(after) = after.strip_prefix(brace) {
                plain += brace;
                rest = after;
            } else if brace == "}" {
                return Err("a } opens nowhere; a brace that is meant is written }}".into());
            } else {
                let Some((name, after)) = after.split_once('}') else {
                    return Err("a { is not closed; a brace that is meant is written {{".into());
                };
                if !is_name(name) {
                    return Err(format!("{{{name}}} is no name; a brace that is meant is written {{{{"));
                }
                parts.extend([Part::Text(std::mem::take(&mut plain)), Part::Place(name.to_owned())]);
                rest = after;
            }
        }
        parts.push(Part::Text(plain + rest));
        Ok(Template(parts))
    }

    /// The names of its places, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Place(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with its places filled; braces in what is filled in are text. A place without a value is an error that gives
    /// its name.
    pub fn fill(&self, values: &BTreeMap<String, String>) -> Result<String, String> {
        let mut filled = String::new();
        for part in &self.0 {
            filled += match part {
                Part::Text(text) => text,
                Part::Place(name) => values.get(name).ok_or_else(|| name.clone())?,
            };
        }
        Ok(filled)
    }
}

/// Whether this may be the name of a step or an input: letters, digits, `-` and `_`.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once() {
        let values =
            [("topic", "{b}"), ("b", "2"), ("标题", "茶")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let fill = |text: &str| Template::parse(text).unwrap().fill(&values.clone().into());
        assert_eq!(fill("a {topic}, {b}{b}").unwrap(), "a {b}, 22");
        assert_eq!(fill("《{标题}》").unwrap(), "《茶》");
        assert_eq!(fill("{{topic}} {{{b}}}").unwrap(), "{topic} {2}");
        assert_eq!(fill("").unwrap(), "");
        assert_eq!(fill("{c}"), Err("c".to_owned()));
    }

    #[test]
    fn braces_must_pair() {
        for (text, want) in
            [("a {b", "not closed"), ("a } b", "nowhere"), ("{}", "no name"), ("{a b}", "no name")]
        {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
