//! The table of strategies, one file each.

mod alone;
mod blendin;
mod head;
mod mix;
mod nudging;
mod rejection;
mod residual;
mod reward;
mod speculative;
mod wsd;

pub use blendin::BLEND_THRESHOLD;
pub use head::{HEAD_DEPTH, HEAD_LEAST, HEAD_NODES, HEAD_WIDTH};
pub use mix::{HAND_OVER, MIX_RULE, MIX_WEIGHT, PLAUSIBILITY};
pub use nudging::NUDGE_THRESHOLD;
pub use rejection::{REJECTION_LEVEL, REJECTION_RULE};
pub use residual::{ALIGNER_TEMPERATURE, BASE_TEMPERATURE, BASE_TOP_K, BASE_TOP_P, CANDIDATES, KL_GATE, RESIDUAL_MODE};
pub use reward::{
    MAX_STEP_TOKENS, REWARD_CRITERION, REWARD_SHARE, REWARD_SLOPE, REWARD_THRESHOLD, STEP_END, STEP_SCORER,
};
pub use wsd::{CHUNK_TOKENS, MAX_DRAFT_TOKENS, ON_DRAFT_END};

use std::sync::LazyLock;

use crate::{Caps, Need, Recipe, Result, Seat, Setting};

/// Every strategy. The command line, the server, the help and the conformance tests derive from
/// this table.
pub static RECIPES: &[&Recipe] = &[
    // In the order of the help.
    &wsd::RECIPE,
    &alone::BASE,
    &alone::DRAFT,
    &nudging::RECIPE,
    &speculative::SPECULATIVE,
    &speculative::ROUTED,
    &head::RECIPE,
    &residual::RECIPE,
    &mix::RECIPE,
    &blendin::RECIPE,
    &rejection::RECIPE,
    &reward::RECIPE,
];

/// The needs of a strategy that reads the rows of draft and base together.
const fn fused_needs() -> [Need; 2] {
    let rows = Caps { logits: true, ..Caps::GENERATE };
    [Need::with(Seat::DRAFT, rows).in_vocabulary_of(Seat::BASE), Need::with(Seat::BASE, rows)]
}

impl Recipe {
    /// Finds a recipe by its name.
    ///
    /// # Errors
    /// [`crate::Error::UnknownRecipe`], with the known names.
    ///
    /// ```
    /// use wsd_core::Recipe;
    /// assert_eq!(Recipe::find("wsd")?.name, "wsd");
    /// assert!(Recipe::find("magic").is_err());
    /// # Ok::<(), wsd_core::Error>(())
    /// ```
    pub fn find(name: &str) -> Result<&'static Self> {
        Self::find_in(RECIPES, "strategy", name)
    }
}

/// The setting for the strategy.
pub static STRATEGY: LazyLock<Setting> = LazyLock::new(|| {
    static NAMES: LazyLock<Vec<(&str, &str)>> =
        LazyLock::new(|| RECIPES.iter().map(|recipe| (recipe.name, recipe.about)).collect());
    Setting::choice("strategy", "The way in which the models share the work", &NAMES).with_placeholder("NAME")
});

/// Every setting of every strategy, once, in the order of the table.
#[must_use]
pub fn strategy_settings() -> Vec<&'static Setting> {
    let mut settings: Vec<&'static Setting> = Vec::new();
    for &setting in RECIPES.iter().flat_map(|recipe| recipe.settings) {
        if settings.iter().all(|known| known.name != setting.name) {
            settings.push(setting);
        }
    }
    settings
}
