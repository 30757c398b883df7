//! Places in a model.

/// A place in a model whose hidden states are returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layer {
    /// After the final norm: the input of the output heads.
    #[default]
    Final,
    /// The residual stream after this number of layers; 0 for the embeddings.
    After(usize),
    /// [`Layer::After`], through the final norm.
    Normed(usize),
}

impl Layer {
    /// The number of layers before the place; `None` for all of them.
    #[must_use]
    pub fn depth(self) -> Option<usize> {
        match self {
            Self::Final => None,
            Self::After(layers) | Self::Normed(layers) => Some(layers),
        }
    }

    /// Tells whether states of the place have passed the final norm.
    #[must_use]
    pub fn is_normed(self) -> bool {
        !matches!(self, Self::After(_))
    }
}
