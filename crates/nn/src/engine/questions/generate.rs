//! Generation, one token at a time.

use tokio::sync::mpsc;
use wsd_core::{Error, Result, Step, Stop};

use super::{Choices, NotFinite, Question, Reader as _, Vectors};
use crate::engine::list::List;
use crate::executor::{Answer, Ask};

/// Continues a list: the next token is chosen as [`Choices`] does and appended.
pub(in crate::engine) struct Generate {
    choices: Choices,
    left: usize,
    stop: Stop,
    reply: mpsc::Sender<Result<Step>>,
}

impl Generate {
    /// Appends at most `left` tokens and sends each over `reply`.
    pub(in crate::engine) fn new(choices: Choices, left: usize, reply: mpsc::Sender<Result<Step>>) -> Self {
        Self { choices, left, stop: Stop::Length, reply }
    }
}

impl Generate {
    /// Sends the next token, or ends.
    fn go_on(&mut self, list: &mut List, step: Result<Step>) {
        match step {
            Err(error) => {
                self.left = 0;
                let _ = self.reply.try_send(Err(error));
            }
            Ok(Step::End(stop)) => (self.stop, self.left) = (stop, 0),
            Ok(Step::Token(sampled)) => {
                list.push(sampled.token);
                self.left -= 1;
                let _ = self.reply.try_send(Ok(Step::Token(sampled)));
            }
        }
        list.advance();
    }
}

impl Question for Generate {
    fn take(&mut self, list: &mut List, vectors: Vectors<'_>) -> Result<(), NotFinite> {
        // The vectors are those of the list's last position, so there is one.
        let step = self.choices.read(list, list.next(), vectors.floats).ok_or(NotFinite)?;
        self.go_on(list, step);
        Ok(())
    }

    fn ask(&self, list: &List, position: usize) -> Option<Ask> {
        self.choices.ask(list, position)
    }

    fn take_answer(&mut self, list: &mut List, answer: &Answer) -> Result<bool, NotFinite> {
        if !answer.logprob.is_finite() {
            return Err(NotFinite);
        }
        let Some(step) = self.choices.read_answer(list, list.next(), answer) else { return Ok(false) };
        self.go_on(list, step);
        Ok(true)
    }

    fn is_done(&self, _: &List) -> bool {
        self.left == 0
    }

    /// If the last token filled the channel, [`Step::End`] is not sent: the receiver infers it from
    /// its own token limit when the channel closes.
    fn finish(self: Box<Self>) {
        let _ = self.reply.try_send(Ok(Step::End(self.stop)));
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.reply.try_send(Err(error));
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn is_blocked(&self) -> bool {
        self.reply.capacity() == 0
    }
}
