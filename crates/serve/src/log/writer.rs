//! Lines go to a thread of their own, so that nobody who works waits for a reader of the log. Where the reader is so slow that
//! many lines wait, further ones are lost, and it is said how many.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const MOST: usize = 4096;
/// How long the end of the process waits for a reader.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where lines are handed in.
#[derive(Clone, Debug)]
pub struct Lines {
    lines: SyncSender<Option<Vec<u8>>>,
    lost: Arc<AtomicUsize>,
}

/// Sees to it that what still waits is written when it is dropped, if somebody reads it.
#[derive(Debug)]
pub struct Flush {
    lines: SyncSender<Option<Vec<u8>>>,
    done: Receiver<()>,
}

impl Lines {
    /// Lines that are written there.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<(Lines, Flush)> {
        let ((lines, waiting), (is_done, done)) = (sync_channel(MOST), sync_channel(1));
        let lost = Arc::new(AtomicUsize::new(0));
        let lost_lines = lost.clone();
        std::thread::Builder::new().name("log".into()).spawn(move || {
            write(out, &waiting, &lost_lines);
            _ = is_done.send(());
        })?;
        Ok((Lines { lines: lines.clone(), lost }, Flush { lines, done }))
    }
}

fn write(mut out: impl Write, waiting: &Receiver<Option<Vec<u8>>>, lost: &AtomicUsize) {
    while let Ok(Some(line)) = waiting.recv() {
        // Nobody can be told that the log cannot be written.
        _ = out.write_all(&line);
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            _ = writeln!(out, "{{\"level\":\"WARN\",\"message\":\"{lost} lines of the log were lost\"}}");
        }
        _ = out.flush();
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let start = Instant::now();
        while self.lines.try_send(None).is_err() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        _ = self.done.recv_timeout(PATIENCE.saturating_sub(start.elapsed()));
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, bytes: Vec::new() }
    }
}

/// A line that is being written, and handed in when it is dropped.
#[derive(Debug)]
pub struct Line<'a> {
    lines: &'a Lines,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() && self.lines.lines.try_send(Some(std::mem::take(&mut self.bytes))).is_err()
        {
            self.lines.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    /// A reader that takes nothing until it is told to.
    struct Slow(Arc<Mutex<Vec<u8>>>, Option<std::sync::mpsc::Receiver<()>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(go) = self.1.take() {
                _ = go.recv();
            }
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_reader_stops_nobody_and_hears_what_it_missed() {
        let (written, (go, gone)) = (Arc::new(Mutex::new(Vec::new())), channel());
        let (lines, flush) = Lines::to(Slow(written.clone(), Some(gone))).unwrap();
        for n in 0..MOST + 50 {
            writeln!(lines.make_writer(), "line {n}").unwrap();
        }
        go.send(()).unwrap();
        drop(flush);
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("line 0\n") && text.contains("\nline 4095\n"));
        let lost = text.lines().find(|line| line.contains("lines of the log were lost")).unwrap();
        let lost: usize = lost.split(['"', ' ']).find_map(|word| word.parse().ok()).unwrap();
        assert_eq!(text.lines().count() - 1 + lost, MOST + 50);
    }
}
