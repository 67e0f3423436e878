//! The progress of a training run on the terminal.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use models::Gpt2;
use train::{EvalReport, Measured, Observer, StepReport};

use crate::input::duration;
use crate::output::note;
use crate::signals::StopFlag;

/// Shows steps, losses and time left; as a bar on a terminal, as lines elsewhere.
pub struct Progress<'a> {
    bar: ProgressBar,
    start: Instant,
    first_step: Option<u64>,
    last_line: Instant,
    stop: &'a StopFlag,
    loss: Option<f64>,
    /// Called after each step, with the means to print a line.
    pub after_step: AfterStep<'a>,
}

/// Sees each step, and may print a line.
pub type AfterStep<'a> = Box<dyn FnMut(&StepReport, &Gpt2, &dyn Fn(&str)) + 'a>;

impl<'a> Progress<'a> {
    /// For a run of `max_steps`.
    pub fn new(max_steps: u64, stop: &'a StopFlag) -> Progress<'a> {
        let bar = ProgressBar::with_draw_target(Some(max_steps), ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{bar:24.cyan/black} {msg}").expect("a valid template");
        bar.set_style(style.progress_chars("━╸ "));
        let now = Instant::now();
        let after_step = Box::new(|_: &StepReport, _: &Gpt2, _: &dyn Fn(&str)| {});
        Progress { bar, start: now, first_step: None, last_line: now, stop, loss: None, after_step }
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        if self.bar.is_hidden() { note!("{text}") } else { self.bar.println(text) }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn message(&mut self, report: &StepReport) -> String {
        let mean = self.loss.map_or(report.loss, |mean| 0.95 * mean + 0.05 * report.loss);
        self.loss = Some(mean);
        let first = *self.first_step.get_or_insert(report.step - 1);
        let done = (report.step - first) as f64;
        let left = (report.max_steps - report.step) as f64 * self.start.elapsed().as_secs_f64() / done;
        format!(
            "step {}/{}  loss {mean:.3}  lr {:.2e}  {:.0} tokens/s  {} left",
            report.step,
            report.max_steps,
            report.lr,
            report.tok_per_sec,
            duration(left)
        )
    }
}

impl Observer for Progress<'_> {
    fn on_step(&mut self, report: &StepReport, model: &Gpt2) {
        let message = self.message(report);
        self.bar.set_position(report.step);
        if self.bar.is_hidden() {
            let is_last = report.step == report.max_steps;
            if self.last_line.elapsed().as_secs() >= 10 || report.step == 1 || is_last {
                self.last_line = Instant::now();
                note!("{message}");
            }
        } else {
            self.bar.set_message(message);
        }
        let bar = &self.bar;
        let print = |text: &str| if bar.is_hidden() { note!("{text}") } else { bar.println(text) };
        (self.after_step)(report, model, &print);
    }

    fn on_prepare(&mut self, done: usize, total: usize) {
        self.start = Instant::now();
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("the model's view of the pairs before training: {done}/{total}"));
        } else if self.last_line.elapsed().as_secs() >= 10 || done == total {
            self.last_line = Instant::now();
            note!("the model's view of the pairs before training: {done}/{total}");
        }
    }

    fn on_eval(&mut self, report: &EvalReport) {
        let EvalReport { step, report, best } = report;
        let mark = match (*best, step) {
            (false, _) => "",
            (true, 0) => "  (before training)",
            (true, _) => "  (best so far, saved)",
        };
        let (loss, accuracy) = (report.loss(), 100.0 * report.accuracy());
        self.line(&match report {
            Measured::Preferences(report) => format!(
                "step {step}: validation loss {loss:.4}, {accuracy:.1} % of pairs right, margin {:.3}{mark}",
                report.margin
            ),
            _ => format!(
                "step {step}: validation loss {loss:.4}, perplexity {:.2}, accuracy {accuracy:.1} %{mark}",
                loss.exp()
            ),
        });
        if *step == 0 {
            self.start = Instant::now();
        }
    }

    fn should_stop(&mut self) -> bool {
        self.stop.is_set()
    }
}
