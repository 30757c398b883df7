//! The models in this process, without a server: the baseline.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use futures::StreamExt as _;
use wsd::config::Settings;
use wsd::models;
use wsd_core::{Event, Job, Strategy};

use super::questions::Questions;
use super::sample::Sample;
use crate::cli::GlobalArgs;
use crate::cli::prompt::of_text;

/// A strategy over models of this process, and its jobs.
pub(super) struct Library {
    strategy: Arc<dyn Strategy>,
    jobs: Vec<Job>,
}

impl Library {
    pub(super) fn load(
        questions: &Questions,
        settings: &Settings,
        max_sessions: usize,
        global: &GlobalArgs,
    ) -> Result<Self> {
        let jobs = questions.prompt.iter().map(|text| Ok(settings.job(of_text(text, &settings.prompt)?)));
        let models = models::load(settings, settings.recipe.needs, max_sessions, global.progress().as_mut())?;
        let strategy = settings.recipe.build(&models, &settings.values)?;
        Ok(Self { strategy, jobs: jobs.collect::<Result<_>>()? })
    }

    /// Runs one job in a task of its own, as the server does for a connection.
    pub(super) async fn ask(&self, index: usize) -> Result<Sample> {
        let job = self.jobs[index % self.jobs.len()].clone();
        let started = Instant::now();
        let mut events = wsd_core::run(self.strategy.clone(), job);
        let work = async move {
            let mut sample =
                Sample { status: 200, first_token: None, pause: None, whole: started.elapsed(), tokens: 0 };
            let mut last: Option<Instant> = None;
            while let Some(event) = events.next().await.transpose()? {
                if matches!(event, Event::Token(_)) {
                    let now = Instant::now();
                    match last.replace(now) {
                        Some(last) => sample.pause = sample.pause.max(Some(now - last)),
                        None => sample.first_token = Some(now - started),
                    }
                    sample.tokens += 1;
                }
            }
            sample.whole = started.elapsed();
            Ok(sample)
        };
        tokio::spawn(work).await?
    }
}
