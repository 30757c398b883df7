//! The files of a draft head: `draft_head.json` and `draft_head.safetensors` in a folder.

use std::path::Path;

use serde::{Deserialize, Serialize};
use wsd_core::splitmix64;

use crate::arch::{self, Blueprint, DraftPlan};
use crate::checkpoint::{self, Checkpoint, Weights};
use crate::error::{Error, Result};

/// The file that describes the head and its base.
pub const CONFIG_FILE: &str = "draft_head.json";
/// The file that holds its tensors, named by [`DraftPlan::tensors`].
pub const WEIGHTS_FILE: &str = "draft_head.safetensors";

/// The base that a head belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseMark {
    /// The width of its features.
    pub hidden_size: usize,
    /// The number of its tokens.
    pub vocab_size: usize,
    /// A sum of the weights of its final norm, which every number format keeps.
    pub fingerprint: String,
}

/// The description of a head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftConfig {
    /// The base.
    pub base: BaseMark,
    /// The number of inner units of the feed-forward parts.
    pub intermediate_size: usize,
    /// See [`DraftPlan::sampling`].
    pub feature_sampling: bool,
    /// See [`DraftPlan::alignment`].
    pub partial_alignment: bool,
}

/// A draft head as its files hold it.
#[derive(Clone, Debug)]
pub struct DraftHead {
    /// The description.
    pub config: DraftConfig,
    /// The tensors.
    pub weights: Weights,
    /// The folder, for messages.
    pub file: String,
}

impl BaseMark {
    /// The mark of a base.
    ///
    /// # Errors
    /// A configuration that cannot be run; [`Error::Tensors`] for a base without a final norm.
    pub fn of(base: &Checkpoint) -> Result<Self> {
        let blueprint = arch::blueprint(&base.config)?;
        let norm = base.weights.require(&[("model.norm.weight".to_owned(), vec![blueprint.hidden])])?;
        let values = norm.iter().flat_map(|norm| norm.to_f32());
        let sum = values.fold(0, |sum, value| splitmix64(sum ^ u64::from((value + blueprint.norms.offset).to_bits())));
        let Blueprint { hidden, vocab, .. } = blueprint;
        Ok(Self { hidden_size: hidden, vocab_size: vocab, fingerprint: format!("{sum:016x}") })
    }

    /// The first key in which two bases differ, as in a file that has a mark as `base`, with both
    /// values.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let keys = |mark: &Self| [mark.hidden_size.to_string(), mark.vocab_size.to_string(), mark.fingerprint.clone()];
        let names = ["base.hidden_size", "base.vocab_size", "base.fingerprint"].into_iter();
        let mut pairs = names.zip(keys(self).into_iter().zip(keys(other)));
        pairs.find(|(_, (own, other))| own != other).map(|(name, (own, other))| (name, own, other))
    }
}

impl DraftConfig {
    /// The head of all parts, FSPAD, with `intermediate_size` inner units.
    #[must_use]
    pub fn new(base: BaseMark, intermediate_size: usize) -> Self {
        Self { base, intermediate_size, feature_sampling: true, partial_alignment: true }
    }

    /// The architecture over a base.
    #[must_use]
    pub fn plan(&self, base: &Blueprint) -> DraftPlan {
        DraftPlan::new(base, self.intermediate_size).with_branches(self.feature_sampling, self.partial_alignment)
    }
}

impl DraftHead {
    /// Opens a folder.
    ///
    /// # Errors
    /// Files that are missing or damaged.
    pub fn open(folder: &Path) -> Result<Self> {
        let place = folder.join(CONFIG_FILE);
        let file = place.display().to_string();
        if !place.is_file() {
            return Err(Error::MissingFile {
                file: folder.display().to_string(),
                missing: CONFIG_FILE.to_owned(),
                hint: "`wsd train head` writes the folder of a draft head".into(),
            });
        }
        let config = checkpoint::read_json(&place)?;
        let weights = folder.join(WEIGHTS_FILE);
        let weights = Weights::new(weights.display().to_string(), checkpoint::read_safetensors(&weights)?);
        Ok(Self { config, weights, file })
    }

    /// The architecture of the head over a base.
    ///
    /// # Errors
    /// [`Error::OtherBase`] for a base that the head was not made for.
    pub fn plan(&self, base: &Checkpoint) -> Result<DraftPlan> {
        if let Some((key, of_head, of_base)) = self.config.base.difference(&BaseMark::of(base)?) {
            return Err(Error::OtherBase { file: self.file.clone(), key, of_head, of_base });
        }
        Ok(self.config.plan(&arch::blueprint(&base.config)?))
    }
}
