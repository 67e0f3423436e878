//! Ctrl-C and SIGTERM: the first asks the work to stop and save, or to remove what is half made; a second one ends the
//! process at once. A closed terminal (SIGHUP) asks, too.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::TERM_SIGNALS;

use crate::output::note;

/// Becomes true when the user wants to stop.
#[derive(Clone, Debug)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Catches the signals from now on.
    pub fn install() -> std::io::Result<StopFlag> {
        let stop = StopFlag::catch()?;
        let seen = stop.clone();
        std::thread::spawn(move || seen.answer());
        Ok(stop)
    }

    fn catch() -> std::io::Result<StopFlag> {
        let stop = StopFlag::catch_terminations()?;
        // A closing terminal may send this twice, from the shell and from the system: it never ends the process.
        #[cfg(unix)]
        if !is_ignored(signal_hook::consts::SIGHUP) {
            signal_hook::flag::register(signal_hook::consts::SIGHUP, stop.0.clone())?;
        }
        Ok(stop)
    }

    fn catch_terminations() -> std::io::Result<StopFlag> {
        let flag = Arc::new(AtomicBool::new(false));
        for &signal in TERM_SIGNALS {
            // The order matters: a second signal finds the flag set and ends the process, then the flag is set.
            signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())?;
            signal_hook::flag::register(signal, flag.clone())?;
        }
        Ok(StopFlag(flag))
    }

    /// Whether a signal came.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for the first signal. Little can be done within the handler of a signal, so that a thread looks.
    fn wait(&self) {
        while !self.is_set() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Answers the first signal at once: the step that is being made may take long.
    fn answer(&self) {
        self.wait();
        // On a terminal the progress bar and `^C` stand on the line.
        let start = if std::io::stderr().is_terminal() { "\n" } else { "" };
        note!("{start}stopping; press Ctrl-C again to quit without saving");
    }
}

/// From now on, the first signal calls `clean_up` and ends the process.
pub fn before_end(clean_up: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let stop = StopFlag::catch()?;
    std::thread::spawn(move || {
        stop.wait();
        clean_up();
        std::process::exit(130);
    });
    Ok(())
}

/// From now on, the first Ctrl-C or SIGTERM calls `act`; a second one ends the process at once. A closed terminal counts, too,
/// but where there is none, SIGHUP is not for ending ([`on_hangup`]).
pub fn on_end(act: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let stop = StopFlag::catch_terminations()?;
    #[cfg(unix)]
    if std::io::stderr().is_terminal() {
        signal_hook::flag::register(signal_hook::consts::SIGHUP, stop.0.clone())?;
    }
    std::thread::spawn(move || {
        stop.wait();
        act();
    });
    Ok(())
}

/// From now on, each SIGHUP calls `act`, unless a closed terminal sends it.
pub fn on_hangup(act: impl Fn() + Send + 'static) -> std::io::Result<()> {
    #[cfg(unix)]
    if !std::io::stderr().is_terminal() {
        let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGHUP])?;
        std::thread::spawn(move || signals.forever().for_each(|_| act()));
    }
    #[cfg(not(unix))]
    drop(act);
    Ok(())
}

/// Whether this process was started to ignore a signal, as `nohup` does, where the system tells.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
