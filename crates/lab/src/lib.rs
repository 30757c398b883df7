//! The lab of wsd: records in, records out. It sees models only through [`wsd_core`].

pub mod data;
pub mod eval;
pub mod events;
pub mod plot;
pub mod report;
pub mod stats;
pub mod world;
