//! Weak-to-Strong Decoding: the facade over [`wsd_core`], [`wsd_nn`], [`wsd_train`], [`wsd_lab`],
//! [`wsd_eval`] and [`wsd_data`], with settings, model names, remote models and a server.

pub mod config;
mod http;
pub mod hub;
pub mod models;
pub mod process;
pub mod remote;
pub mod serve;
mod words;

pub use {wsd_core as core, wsd_data as data, wsd_eval as eval, wsd_lab as lab, wsd_nn as nn, wsd_train as train};
