//! Parameters of Punkt for English: NLTK's where they are installed, else a few of common knowledge.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// NLTK's parameters where they are installed, else a few of common knowledge.
pub(super) static PARAMETERS: LazyLock<Parameters> =
    LazyLock::new(|| folders().find_map(|folder| Parameters::read(&folder)).unwrap_or_else(Parameters::common));

/// The place of the English parameters in a folder of NLTK's data.
const PLACE: &str = "tokenizers/punkt_tab/english";

/// Abbreviations that are known without NLTK.
const ABBREVIATIONS: &str = "mr mrs ms dr prof st jr sr rev gen col capt lt sgt gov sen rep hon vs etc e.g i.e u.s \
                             u.k u.n a.m p.m ph.d inc ltd co corp bros no vol fig ed dept est approx jan feb mar apr \
                             jun jul aug sep sept oct nov dec";
/// Words that often begin a sentence, known without NLTK.
const STARTERS: &str = "the this that these those it he she they we you i in on at as and but however if when while";

/// Parameters of Punkt.
pub(super) struct Parameters {
    /// True for NLTK's parameters, false for the built-in list of abbreviations.
    pub(super) is_trained: bool,
    pub(super) abbreviations: HashSet<&'static str>,
    pub(super) collocations: HashSet<(&'static str, &'static str)>,
    pub(super) starters: HashSet<&'static str>,
    /// Words seen in lower case.
    words: HashMap<&'static str, Usage>,
}

/// Usual case of a word.
#[derive(Clone, Copy, Default)]
pub(super) struct Usage {
    /// It was seen in lower case.
    pub(super) has_lower: bool,
    /// It was never seen capitalized within a sentence.
    pub(super) never_upper_inside: bool,
    /// It was never seen capitalized and has begun a sentence in lower case.
    pub(super) begins_lower: bool,
}

impl Parameters {
    /// Reads the files of a folder; `None` if one is missing. The text is kept for the life of the
    /// program.
    fn read(folder: &Path) -> Option<Self> {
        let read = |name: &str| -> Option<&'static str> {
            let text = fs_err::read_to_string(folder.join(name)).ok()?;
            Some(Box::leak(text.into_boxed_str()))
        };
        let usage = |line: &'static str| {
            let (word, flags) = line.split_once('\t')?;
            Some((word, Usage::new(flags.trim().parse().ok()?)))
        };
        Some(Self {
            is_trained: true,
            abbreviations: read("abbrev_types.txt")?.lines().collect(),
            collocations: read("collocations.tab")?.lines().filter_map(|line| line.split_once('\t')).collect(),
            starters: read("sent_starters.txt")?.lines().collect(),
            words: read("ortho_context.tab")?.lines().filter_map(usage).collect(),
        })
    }

    fn common() -> Self {
        Self {
            is_trained: false,
            abbreviations: ABBREVIATIONS.split_whitespace().collect(),
            collocations: HashSet::new(),
            starters: STARTERS.split_whitespace().collect(),
            words: HashMap::new(),
        }
    }

    pub(super) fn usage_of(&self, word: &str) -> Usage {
        self.words.get(word).copied().unwrap_or_default()
    }
}

impl Usage {
    /// Reads the orthographic contexts in which a word was seen: bits of beginning, middle and unknown
    /// position, first in upper and then in lower case (NLTK's numbers).
    fn new(contexts: u32) -> Self {
        let (upper_inside, upper, begins_lower, lower) = (4, 14, 16, 112);
        Self {
            has_lower: contexts & lower != 0,
            never_upper_inside: contexts & upper_inside == 0,
            begins_lower: contexts & upper == 0 && contexts & begins_lower != 0,
        }
    }
}

/// Folders that may hold the parameters, in NLTK's order.
fn folders() -> impl Iterator<Item = PathBuf> {
    let named = std::env::var_os("NLTK_DATA").unwrap_or_default();
    let named: Vec<_> = std::env::split_paths(&named).collect();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join("nltk_data"));
    let system = ["/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib"];
    let system = system.map(|folder| Path::new(folder).join("nltk_data"));
    named.into_iter().chain(home).chain(system).map(|folder| folder.join(PLACE))
}
