//! Experiments with Weak-to-Strong Decoding: prompt and answer files, a synthetic closed world with
//! an exact grader, evaluations, reports and figures. Models are used only through [`wsd_core`].

pub mod data;
pub mod eval;
pub mod plot;
pub mod report;
pub mod stats;
pub mod three_pass;
pub mod world;
