//! How a story is told: a hero, a friend, a place, a goal, a trouble that fits the goal, and a way out that fits the
//! trouble. It is the friend who has the idea.
//!
//! A [`Grammar`] is the data of one language ([`super::english`], [`super::chinese`]); this file is what they share.
//! Its texts are templates, small enough to be read aloud:
//!
//! - `{hero}` is a value of this story, or an alternative of the table of that name; `{Hero}` starts with a capital;
//! - `[red|blue|]` is one of these, here perhaps nothing; both kinds nest.

use super::Split;
use crate::mix;

/// A template in pieces.
#[derive(Clone)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Slot(&'a str),
    Choice(Vec<&'a str>),
}

/// The kinds of goals. Each has troubles of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    Find,
    Make,
    Bring,
    See,
    Learn,
}

/// What a character is: article and noun.
pub(super) type Kind = (&'static str, &'static str);

/// Characters that share pronouns. A hero is the same being in every story; a friend can be of any of the kinds.
pub(super) struct Cast {
    pub heroes: &'static [(&'static str, Kind)],
    pub friends: &'static [&'static str],
    pub kinds: &'static [Kind],
    pub he: &'static str,
    pub him: &'static str,
    pub his: &'static str,
    pub they: &'static str,
}

/// Where the hero lives, and what there is to see.
pub(super) struct Place {
    pub at: &'static str,
    pub scenery: &'static [&'static str],
}

/// What the hero wants.
pub(super) struct Goal {
    pub family: Family,
    /// "wanted to `want`"
    pub want: &'static str,
    /// "the day `done`"
    pub done: &'static str,
    pub thing: &'static str,
    /// What is needed to make the thing; empty in the other families.
    pub some: &'static str,
    pub why: &'static [&'static str],
    pub win: &'static [&'static str],
}

/// What stands in the way of goals of these families, and what helps against it.
pub(super) struct Trouble {
    pub families: &'static [Family],
    pub what: &'static [&'static str],
    pub fixes: &'static [&'static str],
}

/// What is funny about the friend, and how it comes back near the end.
#[derive(Clone, Copy)]
pub(super) struct Quirk {
    pub is: &'static str,
    pub payoff: &'static str,
}

/// Everything that one language has to say.
pub(super) struct Grammar {
    pub casts: &'static [Cast],
    /// "They", for a pair of two casts.
    pub they: &'static str,
    /// Names of those who help, or wait to be visited. Their kind is said where they come in.
    pub helpers: &'static [&'static str],
    pub places: &'static [Place],
    pub goals: &'static [Goal],
    pub troubles: &'static [Trouble],
    pub quirks: &'static [Quirk],
    /// Whole stories, made of slots.
    pub plans: &'static [&'static str],
    /// The last sentence of a story is one of these.
    pub endings: &'static [&'static str],
    pub tables: &'static [(&'static str, &'static [&'static str])],
    /// A name is introduced where it first stands after one of these,
    pub introduced_after: &'static [&'static str],
    /// or before one of these.
    pub introduced_before: &'static [&'static str],
    /// Quotation marks of this language; templates use “ and ”.
    pub quotes: (&'static str, &'static str),
}

/// Splits a template at its slots and choices. Unbalanced brackets are a mistake in our tables.
pub(super) fn parse(template: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '[']) {
        if at > 0 {
            parts.push(Part::Text(&rest[..at]));
        }
        let inside = &rest[at + 1..];
        let end = if rest[at..].starts_with('{') {
            let end = inside.find('}').expect("a slot ends with }");
            parts.push(Part::Slot(&inside[..end]));
            end
        } else {
            let (alternatives, end) = alternatives(inside);
            parts.push(Part::Choice(alternatives));
            end
        };
        rest = &inside[end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    parts
}

/// The alternatives of a choice whose opening bracket has been read, and where its closing one stands.
fn alternatives(inside: &str) -> (Vec<&str>, usize) {
    let (mut found, mut start, mut depth) = (Vec::new(), 0, 0);
    for (i, c) in inside.char_indices() {
        match c {
            '[' => depth += 1,
            ']' if depth > 0 => depth -= 1,
            ']' => {
                found.push(&inside[start..i]);
                return (found, i);
            }
            '|' if depth == 0 => {
                found.push(&inside[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    panic!("a choice ends with ]: {inside}")
}

/// Random choices: the n-th one is a hash of the seed and n.
pub(super) struct Draw {
    seed: u64,
    n: u64,
}

impl Draw {
    pub fn new(seed: u64) -> Draw {
        Draw { seed, n: 0 }
    }

    fn below(&mut self, n: usize) -> usize {
        self.n += 1;
        (mix(self.seed, self.n, 0) % n as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Writes one story: the values that stay the same through it, and the text so far.
struct Writer<'g> {
    grammar: &'g Grammar,
    draw: Draw,
    values: Vec<(&'static str, &'static str)>,
    text: String,
}

impl Writer<'_> {
    fn write(&mut self, template: &str) {
        for part in parse(template) {
            match part {
                Part::Text(text) => self.text.push_str(text),
                Part::Slot(name) => self.write_slot(name),
                Part::Choice(alternatives) => {
                    let one = self.draw.pick(&alternatives);
                    self.write(one);
                }
            }
        }
    }

    fn write_slot(&mut self, name: &str) {
        let start = self.text.len();
        let value =
            self.values.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|&(_, value)| value);
        let value = value.unwrap_or_else(|| self.draw.pick(self.grammar.table(name)));
        self.write(value);
        if name.starts_with(|c: char| c.is_ascii_uppercase())
            && let Some(first) = self.text[start..].chars().next()
        {
            let capital: String = first.to_uppercase().collect();
            self.text.replace_range(start..start + first.len_utf8(), &capital);
        }
    }
}

/// Which split tells stories of this hero, goal and place: one triple in twelve is kept for validation.
fn split_of(hero: usize, goal: usize, place: usize) -> Split {
    let triple = (hero << 16 | goal << 8 | place) as u64;
    if mix(0x5EED, triple, 0).is_multiple_of(12) { Split::Val } else { Split::Train }
}

impl Grammar {
    /// Tells the story of this seed.
    pub fn tell(&self, split: Split, seed: u64) -> String {
        let mut draw = Draw::new(seed);
        let (hero, goal, place) = self.triple(split, &mut draw);
        let friend = draw.below(self.friends().count());
        let mut values = self.scene(goal, place, &mut draw);
        values.extend(self.people(hero, friend, &mut draw));
        let plan = draw.pick(self.plans);
        let mut writer = Writer { grammar: self, draw, values, text: String::new() };
        writer.write(plan);
        writer.text.replace('“', self.quotes.0).replace('”', self.quotes.1)
    }

    /// The first choices of a story, which decide its split: hero, goal and place by number.
    pub fn triple(&self, split: Split, draw: &mut Draw) -> (usize, usize, usize) {
        loop {
            let hero = draw.below(self.heroes().count());
            let (goal, place) = (draw.below(self.goals.len()), draw.below(self.places.len()));
            if split_of(hero, goal, place) == split {
                return (hero, goal, place);
            }
        }
    }

    /// The characters that can be heroes: name, kind, and the cast each is of.
    pub fn heroes(&self) -> impl Iterator<Item = (&'static str, Kind, &'static Cast)> {
        self.casts.iter().flat_map(|cast| cast.heroes.iter().map(move |&(name, kind)| (name, kind, cast)))
    }

    /// The characters that can be a hero's friend, with the cast each is of.
    pub fn friends(&self) -> impl Iterator<Item = (&'static str, &'static Cast)> {
        self.casts.iter().flat_map(|cast| cast.friends.iter().map(move |&name| (name, cast)))
    }

    /// All names that occur in stories.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let heroes = self.heroes().map(|(name, ..)| name);
        let friends = self.friends().map(|(name, _)| name);
        heroes.chain(friends).chain(self.helpers.iter().copied())
    }

    fn people(&self, hero: usize, friend: usize, draw: &mut Draw) -> Vec<(&'static str, &'static str)> {
        let (hero, (one, kind), cast) =
            self.heroes().nth(hero).expect("a hero's number is below the number of heroes");
        let (friend, f_cast) = self.friends().nth(friend).expect("a friend's number is below their number");
        let (f_one, f_kind) = draw.pick(f_cast.kinds);
        let they = if cast.they == f_cast.they { cast.they } else { self.they };
        let helper = draw.below(self.helpers.len());
        let elder = (helper + 1 + draw.below(self.helpers.len() - 1)) % self.helpers.len();
        vec![
            ("hero", hero),
            ("one", one),
            ("kind", kind),
            ("he", cast.he),
            ("him", cast.him),
            ("his", cast.his),
            ("friend", friend),
            ("f_one", f_one),
            ("f_kind", f_kind),
            ("f_he", f_cast.he),
            ("they", they),
            ("helper", self.helpers[helper]),
            ("elder", self.helpers[elder]),
        ]
    }

    fn scene(&self, goal: usize, place: usize, draw: &mut Draw) -> Vec<(&'static str, &'static str)> {
        let (goal, place, quirk) = (&self.goals[goal], &self.places[place], draw.pick(self.quirks));
        let troubles: Vec<_> = self.troubles.iter().filter(|t| t.families.contains(&goal.family)).collect();
        let trouble = draw.pick(&troubles);
        vec![
            ("place", place.at),
            ("scenery", draw.pick(place.scenery)),
            ("goal", goal.want),
            ("done", goal.done),
            ("thing", goal.thing),
            ("some", goal.some),
            ("why", draw.pick(goal.why)),
            ("win", draw.pick(goal.win)),
            ("trouble", draw.pick(trouble.what)),
            ("fix", draw.pick(trouble.fixes)),
            ("quirk", quirk.is),
            ("payoff", quirk.payoff),
            ("ending", draw.pick(self.endings)),
        ]
    }

    fn table(&self, name: &str) -> &'static [&'static str] {
        let found = self.tables.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| panic!("no value and no table is called {{{name}}}")).1
    }
}
