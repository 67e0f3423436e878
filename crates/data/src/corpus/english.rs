//! The English stories: one table per slot. [`super::grammar`] says how to read the templates.

mod plots;

use super::grammar::{Cast, Grammar, Place, Quirk};
use plots::{GOALS, TROUBLES};

pub(super) static ENGLISH: Grammar = Grammar {
    casts: CASTS,
    they: "they",
    helpers: HELPERS,
    places: PLACES,
    goals: GOALS,
    troubles: TROUBLES,
    quirks: QUIRKS,
    plans: PLANS,
    endings: ENDINGS,
    tables: &[
        ("opening", OPENING),
        ("trait", TRAIT),
        ("f_trait", F_TRAIT),
        ("friend_too", FRIEND_TOO),
        ("comical_friend", COMICAL_FRIEND),
        ("day", DAY),
        ("wish", WISH),
        ("yes", YES),
        ("worry", WORRY),
        ("idea", IDEA),
        ("luck", LUCK),
        ("everyone_could", EVERYONE_COULD),
        ("joy", JOY),
        ("far", FAR),
    ],
    introduced_after: &["named ", "called "],
    introduced_before: &[" was a ", ", a "],
    quotes: ("\"", "\""),
};

const ANIMALS: &[(&str, &str)] = &[
    ("a", "mouse"),
    ("a", "rabbit"),
    ("a", "fox"),
    ("a", "bear"),
    ("a", "cat"),
    ("a", "puppy"),
    ("a", "duck"),
    ("a", "hedgehog"),
    ("a", "frog"),
    ("a", "pig"),
    ("a", "lamb"),
    ("a", "panda"),
];

const CASTS: &[Cast] = &[
    Cast {
        heroes: &[("Lily", ("a", "girl"))],
        friends: &["Mia", "Emma"],
        kinds: &[("a", "girl")],
        he: "she",
        him: "her",
        his: "her",
        they: "they",
    },
    Cast {
        heroes: &[("Tom", ("a", "boy"))],
        friends: &["Ben", "Leo"],
        kinds: &[("a", "boy")],
        he: "he",
        him: "him",
        his: "his",
        they: "they",
    },
    Cast {
        heroes: &[("Daisy", ("a", "duck")), ("Poppy", ("a", "rabbit")), ("Anna", ("a", "panda"))],
        friends: &["Ruby", "Coco"],
        kinds: ANIMALS,
        he: "she",
        him: "her",
        his: "her",
        they: "they",
    },
    Cast {
        heroes: &[
            ("Pip", ("a", "mouse")),
            ("Toby", ("a", "bear")),
            ("Rusty", ("a", "fox")),
            ("Sam", ("a", "hedgehog")),
        ],
        friends: &["Finn", "Teddy"],
        kinds: ANIMALS,
        he: "he",
        him: "him",
        his: "his",
        they: "they",
    },
    Cast {
        heroes: &[("Zip", ("a", "robot"))],
        friends: &["Dot"],
        kinds: &[("a", "robot")],
        he: "she",
        him: "her",
        his: "her",
        they: "they",
    },
    Cast {
        heroes: &[],
        friends: &["Bolt"],
        kinds: &[("a", "robot")],
        he: "he",
        him: "him",
        his: "his",
        they: "they",
    },
];

/// In English every minor character has a name of its own, written out in the plots.
const HELPERS: &[&str] = &[
    "Otto", "Nell", "Gus", "Hilda", "Olive", "Barney", "Bruno", "Clover", "Digby", "Edgar", "Ella", "Flash",
    "Greta", "Hazel", "Hugo", "Lulu", "Minnie", "Nora", "Rocky", "Sheldon", "Sparky", "Winnie",
];

const PLACES: &[Place] = &[
    Place {
        at: "by the river",
        scenery: &["The water [sang|whispered] day and night.", "Little fish jumped in the sun."],
    },
    Place {
        at: "in the forest",
        scenery: &[
            "The trees were so tall that they tickled the clouds.",
            "It smelled of [moss|mushrooms] and rain.",
        ],
    },
    Place {
        at: "on the green hill",
        scenery: &[
            "From up there you could see [seven|nine] roofs.",
            "The wind liked to roll down the grass.",
        ],
    },
    Place {
        at: "by the sea",
        scenery: &["The waves brought a new shell every morning.", "The air tasted of [salt|summer]."],
    },
    Place {
        at: "in the quiet village",
        scenery: &[
            "The bell in the tower was always [two|five] minutes late.",
            "Every door had another color.",
        ],
    },
    Place {
        at: "on the old farm",
        scenery: &["The hens got up first, and loudly.", "There was hay to jump in."],
    },
    Place {
        at: "by the lake",
        scenery: &[
            "In the evening the lake was as [flat|bright] as a mirror.",
            "Tall reeds nodded in the wind.",
        ],
    },
    Place {
        at: "in the meadow",
        scenery: &[
            "There were more [daisies|butterflies] than anyone could count.",
            "The grass was soft and high.",
        ],
    },
    Place {
        at: "in the snowy valley",
        scenery: &["Even in spring there was [some|a little] snow.", "The snow made everything quiet."],
    },
    Place {
        at: "near the old mill",
        scenery: &["The mill went round and round and never got dizzy.", "It smelled of fresh bread."],
    },
    Place {
        at: "on the small island",
        scenery: &["You could walk around it before breakfast.", "The seagulls told the news every morning."],
    },
    Place {
        at: "in the big garden",
        scenery: &["The pumpkins there were as big as [chairs|bears].", "Bees hummed among the roses."],
    },
    Place {
        at: "at the edge of town",
        scenery: &["The last street lamp stood right at the door.", "Behind the house the fields began."],
    },
    Place {
        at: "under the mountain",
        scenery: &["In the morning the mountain wore a cloud like a hat.", "Every shout came back twice."],
    },
];

const QUIRKS: &[Quirk] = &[
    Quirk { is: "was always hungry", payoff: "“Is it time for lunch now?” asked {friend}." },
    Quirk {
        is: "loved to sing",
        payoff: "{Friend} made up a [new|silly] song about it and sang it all day.",
    },
    Quirk {
        is: "loved jokes",
        payoff: "{Friend} told a joke about a [potato|shoe|spoon], and {hero} laughed and laughed.",
    },
    Quirk {
        is: "collected buttons",
        payoff: "On the ground, {friend} found a [green|golden|tiny] button and was very proud.",
    },
    Quirk {
        is: "wore a big straw hat",
        payoff: "The wind took {friend}'s straw hat and put it on {hero}'s head.",
    },
    Quirk {
        is: "liked to count things",
        payoff: "{Friend} counted [seven clouds|nine ducks|three rainbows] and said it was a good day.",
    },
    Quirk {
        is: "could fall asleep anywhere",
        payoff: "{Friend} fell asleep for a minute and woke up smiling.",
    },
    Quirk {
        is: "asked questions all day",
        payoff: "“Why is the sky [so big|blue|so high]?” asked {friend}, and {hero} laughed.",
    },
    Quirk {
        is: "could never sit still",
        payoff: "{Friend} was so happy that {f_he} jumped into a [puddle|heap of leaves].",
    },
    Quirk {
        is: "carried a tiny umbrella",
        payoff: "An apple fell from a tree and bounced off {friend}'s tiny umbrella.",
    },
    Quirk {
        is: "sneezed very loudly",
        payoff: "{Friend} sneezed so loudly that [a hat|a leaf|an acorn] fell down.",
    },
    Quirk {
        is: "was a little bit vain",
        payoff: "{Friend} looked into a puddle and said, “I look like a hero.”",
    },
];

const PLANS: &[&str] = &[
    "{opening} {comical_friend}\n\n{why} {wish} {trouble} {fix}\n\n{win} {payoff} {ending}",
    "{opening} {scenery} {friend_too}\n\n{why} {wish} {trouble} {fix}\n\n{win} {ending}",
    "{opening} {friend_too} {why} {wish}\n\n{trouble} {worry} {fix}\n\n{win} {ending}",
    "{opening} {comical_friend} {why} {wish}\n\n{trouble} {fix}\n\n{win}[ {payoff}|] {ending}",
    "{opening} {friend_too} {why} {wish}\n\n{trouble} {fix} {win} {joy} {ending}",
    "{opening} {friend_too}\n\n{why} {wish} {trouble}[ {worry}|] {fix}\n\n{win} {ending}",
];

const OPENING: &[&str] = &[
    "Once upon a time, {one} {trait} {kind} named {hero} lived {place}.",
    "There once was {one} {trait} {kind} called {hero}, who lived {place}.",
    "{Hero} was {one} {trait} {kind} who lived {place}.",
    "In a [small|yellow|crooked] house {place} lived {one} {trait} {kind} named {hero}.",
    "Long ago, {place}, there lived {one} {trait} {kind} called {hero}.",
    "Everyone {place} knew {hero}, {one} {trait} {kind} with a [big smile|red scarf|loud laugh].",
];

const TRAIT: &[&str] =
    &["little", "kind", "cheerful", "curious", "brave", "shy", "clever", "gentle", "young", "lively"];
const F_TRAIT: &[&str] = &["small", "funny", "friendly", "merry", "tiny", "quiet"];

const FRIEND_TOO: &[&str] = &[
    "{His} best friend was {f_one} {f_trait} {f_kind} named {friend}.",
    "{He} had a friend called {friend}, {f_one} {f_trait} {f_kind}.",
    "Next door lived {friend}, {f_one} {f_trait} {f_kind}.",
    "{Hero} did everything together with {friend}, {f_one} {f_trait} {f_kind}.",
    "{He} played every day with {f_one} {f_trait} {f_kind} named {friend}.",
];

const COMICAL_FRIEND: &[&str] = &[
    "{His} best friend was {f_one} {f_trait} {f_kind} named {friend}, who {quirk}.",
    "{He} had a friend called {friend}, {f_one} {f_trait} {f_kind} who {quirk}.",
    "Next door lived {friend}, {f_one} {f_trait} {f_kind} who {quirk}.",
    "{Hero} did everything together with {friend}, {f_one} {f_kind} who {quirk}.",
    "{He} played every day with {f_one} {f_trait} {f_kind} named {friend}, who {quirk}.",
];

const DAY: &[&str] = &[
    "sunny morning",
    "windy morning",
    "warm day",
    "quiet morning",
    "bright day",
    "fine day",
    "cool morning",
];

const WISH: &[&str] = &[
    "So one {day}, {hero} set out to {goal}.[ {Friend} came along.|]",
    "One {day}, {hero} decided to {goal}.[ “I will help,” said {friend}.|]",
    "“I want to {goal},” said {hero} one {day}.[ {yes}|]",
    "“I want to {goal}. Will you help me?” asked {hero}.[ {yes}|]",
    "“Today is the day,” said {hero} to {friend}. “I am going to {goal}.”",
];

const YES: &[&str] = &[
    "“Of course!” said {friend}.",
    "“I will help you,” said {friend}.",
    "{Friend} nodded at once.",
    "“Let us go!” said {friend}.",
    "“Only after breakfast,” said {friend}.",
];

const WORRY: &[&str] = &[
    "“Oh no!” said {hero}. “What now?”",
    "“Oh dear,” said {friend}.[ {Hero} felt very small.|]",
    "{Hero} felt [sad|worried|helpless]. “Do not worry,” said {friend}. “We will find a way.”",
    "{Hero} sighed and sat down on a stone.",
    "“It will never work,” said {hero}. “Never is a very long time,” said {friend}.",
    "{Hero} [nearly|almost] cried, but {friend} gave {him} a hug.",
];

const IDEA: &[&str] = &[
    "Then {friend} had an idea.",
    "“I have an idea!” said {friend}.",
    "{Friend} thought and thought. “I know!” said {friend}.",
    "{Friend} looked around and smiled. “Watch this,” said {friend}.",
];

const LUCK: &[&str] =
    &["Just then, help came.", "Luckily, they were not alone.", "“Can I help?” asked someone."];

const EVERYONE_COULD: &[&str] = &["Everyone {place} could", "All the others could"];

const FAR: &[&str] =
    &["behind the hill", "at the end of the road", "far away", "on the other side of the wood"];

const JOY: &[&str] = &[
    "{Hero} was so [happy|proud] that {he} [jumped|danced] for joy.",
    "“Hooray!” cried {hero}. “Hooray!” cried {friend}.",
    "“Thank you, {friend},” said {hero}.",
    "{Hero} gave {friend} a big hug.",
    "They laughed until the [sun|stars] laughed too.",
];

const ENDINGS: &[&str] = &[
    "{Hero} and {friend} never forgot the day {done}.",
    "And that is the story of how {done}.",
    "That night, {hero} fell asleep with a smile and dreamed of {thing}.",
    "From that day on, {hero} and {friend} were the best friends {place}.",
    "And whenever {hero} thought of {thing}, {he} thought of {friend} and smiled.",
    "Then {hero} and {friend} went home together, happy and [tired|a little sleepy].",
    "“What a day!” said {hero}, and {friend} said, “Tomorrow we will do it again!”",
    "“With a friend like you, everything is easy,” said {hero} to {friend}.",
    "And if you go there today, you can still hear {hero} and {friend} laughing about {thing}.",
    "And {hero} learned that with {friend} and a good idea, nothing is too hard.",
];
