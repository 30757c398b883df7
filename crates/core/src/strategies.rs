//! The table of strategies, one file each.

mod alone;
mod nudging;
mod speculative;
mod wsd;

pub use nudging::NUDGE_THRESHOLD;
pub use wsd::{CHUNK_TOKENS, MAX_DRAFT_TOKENS, ON_DRAFT_END};

use std::sync::LazyLock;

use crate::{Recipe, Result, Setting};

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
];

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
