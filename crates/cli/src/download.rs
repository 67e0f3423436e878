//! Models of the hub on their way to this machine, with a bar on a terminal and lines elsewhere.

use std::time::Instant;

use anyhow::Result;
use hub::{Event, Hub, Name, Snapshot, Wanted};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::input::size;
use crate::output::note;

/// Seconds between two lines where there is no terminal.
const SECONDS: u64 = 10;

/// The directory of a model or a tokenizer, which is downloaded if it is not in the cache.
pub fn get(name: &Name, wanted: Wanted, offline: bool) -> Result<Snapshot> {
    let hub = Hub::from_env()?.with_offline(offline);
    shown(name, |on| hub.get(name, wanted, on))
}

/// The same, but the hub is asked whether there is something newer.
pub fn pull(name: &Name, offline: bool) -> Result<Snapshot> {
    let hub = Hub::from_env()?.with_offline(offline);
    shown(name, |on| hub.pull(name, Wanted::Model, on))
}

fn shown(name: &Name, work: impl FnOnce(&mut dyn FnMut(Event)) -> hub::Result<Snapshot>) -> Result<Snapshot> {
    let mut progress = Progress { name, bar: ProgressBar::hidden(), bytes: 0, said: Instant::now() };
    let result = work(&mut |event| progress.on(event));
    progress.bar.finish_and_clear();
    let snapshot = result?;
    if snapshot.downloaded > 0 {
        note!("downloaded {name} ({}) to {}", size(snapshot.downloaded), snapshot.path.display());
    }
    Ok(snapshot)
}

struct Progress<'a> {
    name: &'a Name,
    bar: ProgressBar,
    bytes: u64,
    said: Instant,
}

impl Progress<'_> {
    fn on(&mut self, event: Event) {
        match event {
            Event::Asking { endpoint } => self.line(&format!("asking {endpoint} for {}", self.name)),
            Event::Start { bytes } => self.start(bytes),
            Event::At(at) => self.at(at),
            Event::Waiting { file } => {
                self.line(&format!("another process is downloading {file}; waiting for it"))
            }
            Event::Cut { file, reason } => self.line(&format!("{file}: {reason}; going on")),
            Event::Unchecked { file } => self
                .line(&format!("warning: the server gave no checksum of {file}, so that it is not checked")),
        }
    }

    fn start(&mut self, bytes: u64) {
        self.bytes = bytes;
        let template = "{bar:24.cyan/black} {msg}  {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
        let style = ProgressStyle::with_template(template).expect("a valid template");
        self.bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10));
        self.bar.set_style(style.progress_chars("━╸ "));
        self.bar.set_message(self.name.to_string());
        if self.bar.is_hidden() {
            note!("downloading {}: {}", self.name, size(bytes));
        }
    }

    fn at(&mut self, at: u64) {
        if self.bar.position() == 0 && at > 0 {
            self.bar.set_position(at);
            self.bar.reset_eta(); // what an earlier try has left came at no speed
        }
        self.bar.set_position(at);
        if self.bar.is_hidden() && self.said.elapsed().as_secs() >= SECONDS {
            self.said = Instant::now();
            note!("{} of {}", size(at), size(self.bytes));
        }
    }

    fn line(&self, text: &str) {
        if self.bar.is_hidden() { note!("{text}") } else { self.bar.println(text) }
    }
}
