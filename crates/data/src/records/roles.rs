//! Who speaks: the names that people write, as `system`, `user` and `assistant`.

use std::collections::BTreeMap;

use super::RecordError;
use crate::{DataError, Result};

/// One of the three who may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Says how the conversation is to be.
    System,
    /// Asks.
    User,
    /// Answers.
    Assistant,
}

impl Role {
    /// As chat templates call it.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// Names of users in published data, in small letters.
const USERS: [&str; 14] = [
    "user", "human", "usr", "customer", "client", "prompter", "visitor", "question", "q", "用户", "顾客",
    "客户", "买家", "人",
];
const ASSISTANTS: [&str; 18] = [
    "assistant",
    "gpt",
    "bot",
    "chatbot",
    "chatgpt",
    "model",
    "ai",
    "agent",
    "answer",
    "a",
    "wizard",
    "助手",
    "客服",
    "店员",
    "商家",
    "卖家",
    "机器人",
    "助理",
];
/// Names that are the system prompt's, or in data of task-oriented dialogues (SGD, CrossWOZ) the assistant's.
const SYSTEMS: [&str; 4] = ["system", "sys", "developer", "系统"];

/// Names of one's own: `usr=user,sys=assistant`. They win over the known ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(BTreeMap<String, Role>);

impl std::str::FromStr for Roles {
    type Err = DataError;

    fn from_str(spec: &str) -> Result<Roles> {
        let refuse = || DataError::Roles { spec: spec.to_owned() };
        let mut names = BTreeMap::new();
        for part in spec.split(',') {
            let (name, role) = part.rsplit_once('=').ok_or_else(refuse)?;
            let role = match role.trim() {
                "system" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                _ => return Err(refuse()),
            };
            if name.trim().is_empty() || names.insert(name.trim().to_owned(), role).is_some() {
                return Err(refuse());
            }
        }
        Ok(Roles(names))
    }
}

impl Roles {
    /// The role of each name of a conversation, in order. `system` is the assistant where nobody else answers: when it
    /// speaks after a user, and more than once or not first.
    pub fn of(&self, names: &[&str]) -> std::result::Result<Vec<Role>, RecordError> {
        let mut roles: Vec<Role> = Vec::with_capacity(names.len());
        // Whether the name alone does not tell.
        let mut is_open = Vec::with_capacity(names.len());
        for (i, &name) in names.iter().enumerate() {
            let own = self.0.get(name.trim()).copied();
            let role = own.or_else(|| known(name));
            let role = role.ok_or_else(|| RecordError::Role { turn: i + 1, name: name.to_owned() })?;
            is_open.push(own.is_none() && role == Role::System);
            roles.push(role);
        }
        let answers = roles.contains(&Role::Assistant);
        let speaks_later = is_open.iter().skip(1).any(|&open| open);
        if !answers && speaks_later && roles.contains(&Role::User) {
            let open = roles.iter_mut().zip(&is_open).filter(|(_, open)| **open);
            open.for_each(|(role, _)| *role = Role::Assistant);
        }
        Ok(roles)
    }
}

fn known(name: &str) -> Option<Role> {
    let name = name.trim().to_lowercase();
    let is_in = |names: &[&str]| names.contains(&name.as_str());
    match () {
        () if is_in(&USERS) => Some(Role::User),
        () if is_in(&ASSISTANTS) => Some(Role::Assistant),
        () if is_in(&SYSTEMS) => Some(Role::System),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Role::{Assistant, System, User};
    use super::*;

    #[test]
    fn names_become_roles() {
        let none = Roles::default();
        for (names, want) in [
            (vec!["system", "user", "assistant"], vec![System, User, Assistant]),
            (vec!["human", "gpt"], vec![User, Assistant]),
            // Task-oriented data: SGD, CrossWOZ, one in which the assistant greets.
            (vec!["user", "system", "user"], vec![User, Assistant, User]),
            (vec!["usr", "sys"], vec![User, Assistant]),
            (vec!["sys", "usr", "sys"], vec![Assistant, User, Assistant]),
            // A system prompt that nobody answers to.
            (vec!["system", "user"], vec![System, User]),
            (vec!["sys", "usr", "bot"], vec![System, User, Assistant]),
            (vec!["用户", "客服"], vec![User, Assistant]),
            (vec!["顾客", "店员", "顾客"], vec![User, Assistant, User]),
            (vec!["买家", "卖家"], vec![User, Assistant]),
            (vec!["客户", "商家"], vec![User, Assistant]),
        ] {
            assert_eq!(none.of(&names).unwrap(), want, "{names:?}");
        }
        let error = none.of(&["user", "Alice"]).unwrap_err().to_string();
        assert!(error.contains("turn 2") && error.contains("--roles Alice=user"), "{error}");
    }

    #[test]
    fn names_of_ones_own_win() {
        let roles: Roles = "Alice=user, Bob = assistant,gpt=user".parse().unwrap();
        assert_eq!(roles.of(&["Alice", "Bob", "gpt"]).unwrap(), [User, Assistant, User]);
        let fixed: Roles = "system=system".parse().unwrap();
        assert_eq!(fixed.of(&["user", "system"]).unwrap(), [User, System]);
        for bad in ["Alice", "Alice=boss", "=user", "a=user,a=assistant", ""] {
            assert!(bad.parse::<Roles>().unwrap_err().to_string().contains("usr=user"), "{bad}");
        }
    }
}
