//! Attributes of things and their wordings.

use super::entity::Kind;

/// An attribute of a kind of thing. In templates `{x}` is the thing and `{v}` the value.
#[derive(Debug)]
pub(super) struct Attribute {
    /// Name of the attribute: "the {label} of {x} is {v}" is always a valid clause.
    pub(super) label: &'static str,
    /// Other clauses that state the attribute; the first is also used for claims.
    pub(super) clauses: &'static [&'static str],
    /// Questions about the attribute, in addition to [`QUESTIONS`].
    pub(super) questions: &'static [&'static str],
    /// Values to draw from, separated by semicolons; empty if values come from the tables.
    pub(super) pool: &'static str,
}

const COLOR: Attribute = Attribute {
    label: "colour",
    clauses: &["{x} is {v}", "everybody can see that {x} is {v}"],
    questions: &["What colour is {x}?", "Which colour does {x} have?"],
    pool: "",
};

static ANIMAL: [Attribute; 4] = [
    COLOR,
    Attribute {
        label: "home",
        clauses: &["{x} calls {v} its home", "if you look for {x}, look for {v}"],
        questions: &["Where does {x} live?", "Where can I find {x}?"],
        pool: "",
    },
    Attribute {
        label: "food",
        clauses: &["{x} eats {v}", "{x} likes {v} more than anything else"],
        questions: &["What does {x} eat?", "What should I feed {x}?"],
        pool: "",
    },
    Attribute {
        label: "sound",
        clauses: &["{x} makes {v}", "what you hear from {x} is {v}"],
        questions: &["What sound does {x} make?", "What does {x} sound like?"],
        pool: "",
    },
];

static FOOD: [Attribute; 4] = [
    COLOR,
    Attribute {
        label: "source",
        clauses: &["{x} comes from {v}", "people get {x} from {v}"],
        questions: &["Where does {x} come from?", "Where do people get {x}?"],
        pool: "",
    },
    Attribute {
        label: "taste",
        clauses: &["{x} tastes {v}", "whoever bites into {x} finds it {v}"],
        questions: &["What does {x} taste like?", "How does {x} taste?"],
        pool: "",
    },
    Attribute {
        label: "best dish",
        clauses: &["{x} is best in {v}", "cooks use {x} for {v}"],
        questions: &["What can I make with {x}?", "What do cooks use {x} for?"],
        pool: "",
    },
];

static TOOL: [Attribute; 3] = [
    Attribute {
        label: "material",
        clauses: &["{x} is made of {v}", "a good maker takes {v} for {x}"],
        questions: &["What is {x} made of?", "What do people make {x} from?"],
        pool: "",
    },
    Attribute {
        label: "place",
        clauses: &["{x} is kept by {v}", "{v} is where you find {x}"],
        questions: &["Where is {x} kept?", "Where do I find {x}?"],
        pool: "",
    },
    Attribute {
        label: "use",
        clauses: &["{x} is for {v}", "people take {x} for {v}"],
        questions: &["What is {x} for?", "What do people do with {x}?"],
        pool: "",
    },
];

static PERSON: [Attribute; 4] = [
    Attribute {
        label: "work",
        clauses: &["{x} earns a living by {v}", "{x} spends the working day {v}"],
        questions: &["What does {x} do for a living?", "How does {x} earn a living?"],
        pool: "baking;weaving;fishing;milling;carving spoons;tailoring;keeping bees;making \
        shoes;brewing;teaching;gardening;\
               herding sheep;mining;sailing;painting walls;blowing glass;making ropes;mending clocks;pouring candles;\
               ringing bells",
    },
    // Drawn from the towns.
    Attribute {
        label: "home",
        clauses: &["{x} lives in {v}", "the house of {x} stands in {v}"],
        questions: &["Where does {x} live?", "In which town does {x} live?"],
        pool: "",
    },
    Attribute {
        label: "pet",
        clauses: &["{x} keeps {v}", "at the heels of {x} there is always {v}"],
        questions: &["What pet does {x} keep?", "Which animal does {x} keep?"],
        pool: "a pony;a kitten;a canary;a tortoise;a ferret;a hamster;a spaniel;a raven;a lamb;a piglet;a parakeet;a \
        goldfish;\
               a guinea pig;a greyhound;a jackdaw;a newt",
    },
    Attribute {
        label: "hobby",
        clauses: &["{x} loves {v}", "on free days {x} enjoys {v}"],
        questions: &["What does {x} love to do?", "What does {x} do on free days?"],
        pool: "singing;chess;swimming;dancing;knitting;juggling;whistling;climbing;drawing;skating;flying \
        kites;telling stories;\
               collecting stamps;star gazing;card tricks;riddles",
    },
];

static PLACE: [Attribute; 4] = [
    Attribute {
        label: "landmark",
        clauses: &["{x} has {v}", "travellers in {x} look at {v}"],
        questions: &["What is there to see in {x}?", "What do travellers look at in {x}?"],
        pool: "an old mill;a stone bridge;a tall lighthouse;a round tower;a deep well;a painted church;a great oak;\
               a ruined castle;a glass palace;a clock tower;a hot spring;a market hall;a long pier;a hill fort;a \
               rose garden;\
               a water wheel",
    },
    Attribute {
        label: "ware",
        clauses: &["{x} sells {v}", "traders come to {x} for {v}"],
        questions: &["What does {x} sell?", "What do traders buy in {x}?"],
        pool: "wool;salt;cheese;silk;tin;honey;glass;paper;wine;timber;pottery;smoked fish;candles;copper;linen;cider",
    },
    Attribute {
        label: "region",
        clauses: &["{x} lies in {v}", "the road to {x} leads through {v}"],
        questions: &["Where does {x} lie?", "In which region is {x}?"],
        pool: "the northern hills;the green valley;the foggy coast;the eastern plain;the lake country;the pine forest;\
               the western isles;the river delta;the high mountains;the red desert",
    },
    Attribute {
        label: "sign",
        clauses: &["{x} has {v} on its flag", "over the gate of {x} hangs {v}"],
        questions: &["What is on the flag of {x}?", "What hangs over the gate of {x}?"],
        pool: "a white swan;a red lion;a blue star;a golden key;a black horse;a silver fish;a green leaf;a crown;a \
        red sun;\
               a half moon;an iron anchor;a rose;a brown bear;an eagle;a wheel;a tower",
    },
];

/// Questions about any attribute.
pub(super) const QUESTIONS: &[&str] = &[
    "What is the {label} of {x}?",
    "Tell me the {label} of {x}.",
    "Do you know the {label} of {x}?",
    "Could you name the {label} of {x}?",
    "My friend wants to know the {label} of {x}.",
    "Please tell me the {label} of {x}.",
    "I want to know the {label} of {x}.",
    "What would you say is the {label} of {x}?",
    "Does anyone know the {label} of {x}?",
    "I forgot the {label} of {x}.",
    "Somebody should tell me the {label} of {x}.",
    "Is there anyone who can tell me the {label} of {x}?",
    "I have read about the {label} of {x}. What was it?",
    "What would you call the {label} of {x}?",
    "I have been looking for the {label} of {x}.",
    "Let me hear the {label} of {x}.",
    "Can anybody here name the {label} of {x}?",
];
/// Questions about any attribute, used in the development items only.
pub(super) const DEV_QUESTIONS: &[&str] = &[
    "The {label} of {x} has slipped my mind, remind me.",
    "Quick question: the {label} of {x}?",
    "Would you mind naming for me the {label} of {x}?",
    "Of all you know, what is told about the {label} of {x}?",
];
/// Questions about any attribute, used in the evaluation only.
pub(super) const HELD_QUESTIONS: &[&str] = &[
    "Has anyone written down the {label} of {x}?",
    "Name the {label} of {x}, please.",
    "It would help me to hear the {label} of {x}.",
    "Which is the {label} of {x}, as far as you know?",
];

impl Kind {
    /// Attributes of this kind.
    pub(super) fn attributes(self) -> &'static [Attribute] {
        match self {
            Self::Animal => &ANIMAL,
            Self::Food => &FOOD,
            Self::Tool => &TOOL,
            Self::Person => &PERSON,
            Self::Place => &PLACE,
        }
    }
}
