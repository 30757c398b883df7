//! Segmentation of English text as NLTK does it, on which graders of other projects stand.

pub(crate) mod punkt;
pub(crate) mod words;
