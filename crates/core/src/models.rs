//! The models at hand, by seat.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::scoped::Scoped;
use crate::{Engine, Error, Result, Scope, Seat};

/// The models at hand, by seat. A seat may hold several, as a chain of middle models does.
///
/// ```
/// use std::sync::Arc;
/// use wsd_core::scripted::{Pieces, Scripted};
/// use wsd_core::{Models, Seat};
///
/// let pieces = Arc::new(Pieces::letters("abc "));
/// let models = Models::default().with(Seat::BASE, Arc::new(Scripted::random("base", pieces, 1)));
/// assert_eq!(models.require("wsd", Seat::BASE)?.card().name, "base");
/// let error = models.require("wsd", Seat::DRAFT).err().unwrap().to_string();
/// assert!(error.starts_with("`wsd` needs a draft model"));
/// # Ok::<(), wsd_core::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Models(BTreeMap<Seat, Vec<Arc<dyn Engine>>>);

impl Models {
    /// The same models with one more in `seat`.
    #[must_use]
    pub fn with(mut self, seat: Seat, engine: Arc<dyn Engine>) -> Self {
        self.add(seat, engine);
        self
    }

    /// Adds a model to `seat`, after those it already holds.
    pub fn add(&mut self, seat: Seat, engine: Arc<dyn Engine>) {
        self.0.entry(seat).or_default().push(engine);
    }

    /// Takes every model out of `seat`.
    pub fn remove(&mut self, seat: Seat) {
        self.0.remove(&seat);
    }

    /// The same models, whose sessions are opened within `scope`; see [`Engine::open_in`]. The acceptance
    /// of proposals is measured anew; see [`Profile::scoped`](crate::Profile::scoped).
    #[must_use]
    pub fn scoped(&self, scope: Scope) -> Self {
        let scoped = |engine: &Arc<dyn Engine>| Arc::new(Scoped::new(engine.clone(), scope)) as Arc<dyn Engine>;
        Self(self.0.iter().map(|(seat, engines)| (*seat, engines.iter().map(scoped).collect())).collect())
    }

    /// The first model in `seat`.
    #[must_use]
    pub fn get(&self, seat: Seat) -> Option<&Arc<dyn Engine>> {
        self.all(seat).first()
    }

    /// Every model in `seat`, in the order they were added.
    #[must_use]
    pub fn all(&self, seat: Seat) -> &[Arc<dyn Engine>] {
        self.0.get(&seat).map_or(&[], Vec::as_slice)
    }

    /// Iterates over the seats that are filled, with their first models.
    pub fn iter(&self) -> impl Iterator<Item = (Seat, &Arc<dyn Engine>)> {
        self.0.iter().filter_map(|(&seat, engines)| Some((seat, engines.first()?)))
    }

    /// The first model in `seat`, for a strategy that cannot do without.
    ///
    /// # Errors
    /// [`Error::MissingModel`] names the strategy and the option that fills the seat.
    pub fn require(&self, strategy: &'static str, seat: Seat) -> Result<Arc<dyn Engine>> {
        self.get(seat).cloned().ok_or(Error::MissingModel { strategy, seat })
    }
}
