//! An engine as one request sees it: within its scope, and with proposals measured for itself.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Activity, Card, Engine, ModelFiles, Profile, Result, Scope, Session, Setting, TextCodec, Token};

/// An engine whose [`Engine::open`] opens sessions in a given scope. Its profile shares the step times of
/// the engine, but the acceptance of proposals is that of its own sessions: times of answers then tell
/// nothing about texts of other scopes.
pub(crate) struct Scoped {
    engine: Arc<dyn Engine>,
    scope: Scope,
    profile: Profile,
}

impl Scoped {
    /// An engine in a scope, in which no proposal has been checked yet.
    pub(crate) fn new(engine: Arc<dyn Engine>, scope: Scope) -> Self {
        let profile = engine.profile().scoped();
        Self { engine, scope, profile }
    }
}

#[async_trait]
impl Engine for Scoped {
    fn card(&self) -> &Card {
        self.engine.card()
    }

    fn codec(&self) -> &TextCodec {
        self.engine.codec()
    }

    fn device(&self) -> Option<String> {
        self.engine.device()
    }

    fn files(&self) -> ModelFiles {
        self.engine.files()
    }

    fn layers(&self) -> Option<usize> {
        self.engine.layers()
    }

    fn activity(&self) -> Activity {
        self.engine.activity()
    }

    fn profile(&self) -> Profile {
        self.profile.clone()
    }

    fn weights(&self) -> Option<u64> {
        self.engine.weights()
    }

    fn ignored_sampling(&self) -> &[&'static Setting] {
        self.engine.ignored_sampling()
    }

    fn applies_masks(&self) -> bool {
        self.engine.applies_masks()
    }

    async fn open(&self, tokens: &[Token]) -> Result<Box<dyn Session>> {
        self.engine.open_in(self.scope, tokens).await
    }

    async fn open_in(&self, scope: Scope, tokens: &[Token]) -> Result<Box<dyn Session>> {
        self.engine.open_in(scope, tokens).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acceptance::Hint;
    use crate::scripted::{Pieces, Scripted};

    #[test]
    fn step_times_are_shared_and_acceptance_is_kept_within_the_scope() {
        let engine: Arc<dyn Engine> = Arc::new(Scripted::random("base", Arc::new(Pieces::letters("abc ")), 1));
        let [one, other] = [1, 2].map(|cache| Scoped::new(engine.clone(), Scope { cache, client: 0 }));
        one.profile().record(1, 0.020);
        one.profile().update_acceptance("lookup", |acceptance| acceptance.add(Hint::Probability(0.9), true));
        assert_eq!(other.profile().step_time(), one.profile().step_time());
        assert!(one.profile().step_time().is_some());
        let evidence = |engine: &dyn Engine| engine.profile().acceptance("lookup").evidence();
        assert!(evidence(&one) > evidence(&other));
        assert_eq!(evidence(&other), evidence(&*engine));
    }
}
