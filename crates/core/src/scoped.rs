//! An engine whose sessions share KV caches with one another only.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Activity, Card, Engine, ModelFiles, Profile, Result, Scope, Session, Setting, TextCodec, Token};

/// An engine that opens all sessions in one scope.
pub(crate) struct Scoped {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) scope: Scope,
}

#[async_trait]
impl Engine for Scoped {
    fn card(&self) -> &Card {
        self.engine.card()
    }

    fn codec(&self) -> &TextCodec {
        self.engine.codec()
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
        self.engine.profile().scoped()
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
