//! A terminal for tests: what is typed goes to `gpt2`, and what that prints is drawn on a screen.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pty_process::Size;
use pty_process::blocking::{Command, Pty};

use super::Folder;

pub const CTRL_C: &str = "\x03";
pub const CTRL_D: &str = "\x04";
pub const UP: &str = "\x1b[A";
pub const ALT_ENTER: &str = "\x1b\r";

/// So many rows that nothing scrolls away.
const ROWS: u16 = 400;

pub struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Terminal {
    /// Starts `gpt2` with words separated by white space, on so many columns.
    pub fn start(folder: &Folder, args: &str, columns: u16) -> Terminal {
        let (pty, pts) = pty_process::blocking::open().unwrap();
        pty.resize(Size::new(ROWS, columns)).unwrap();
        let command = Command::new(env!("CARGO_BIN_EXE_gpt2")).args(args.split_whitespace());
        let child = command.current_dir(folder.path("")).env("TERM", "xterm").spawn(pts).unwrap();
        let [rows, columns] = [ROWS, columns].map(|n| NonZeroU16::new(n).unwrap());
        let (pty, screen) = (Arc::new(pty), Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0))));
        let (from, to) = (pty.clone(), screen.clone());
        let reader = Some(std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the other side is an error on Linux, and the end of the file elsewhere.
            while let Ok(n @ 1..) = (&*from).read(&mut bytes) {
                to.lock().unwrap().process(&bytes[..n]);
            }
        }));
        Terminal { pty, child, screen, reader }
    }

    pub fn send(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    pub fn process(&self) -> &Child {
        &self.child
    }

    /// The rows of the screen, without the empty ones at its end.
    pub fn rows(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap();
        let columns = screen.screen().size().1.get();
        let mut rows: Vec<String> =
            screen.screen().rows(0, columns).map(|row| row.trim_end().into()).collect();
        rows.truncate(rows.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1));
        rows
    }

    pub fn text(&self) -> String {
        self.rows().join("\n")
    }

    /// Waits until the screen is as it should be; a program that ends before that is a failure.
    #[track_caller]
    pub fn wait(&mut self, what: &str, is_so: impl Fn(&Terminal) -> bool) {
        while !is_so(self) {
            if self.child.try_wait().unwrap().is_some() {
                self.reader.take().map(|reader| reader.join());
                assert!(is_so(self), "it ended, and {what} did not come:\n{}", self.text());
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        self.wait(&format!("{text:?}"), |terminal| terminal.text().contains(text));
    }

    /// Waits until a message can be typed: the cursor stands behind an empty prompt.
    #[track_caller]
    pub fn wait_for_prompt(&mut self) {
        self.wait("the prompt", |terminal| {
            let (row, column) = terminal.screen.lock().unwrap().screen().cursor_position();
            column == 2 && terminal.rows().get(usize::from(row)).is_some_and(|row| row == ">")
        });
    }

    /// Types a line and waits for the next prompt; gives the rows that came, from that of the line on.
    #[track_caller]
    pub fn say(&mut self, line: &str) -> Vec<String> {
        self.wait_for_prompt();
        let before = self.rows().len() - 1;
        self.send(line);
        self.send("\r");
        self.wait("the next prompt", |terminal| terminal.rows().len() > before + 1);
        self.wait_for_prompt();
        let rows = self.rows();
        rows[before..rows.len() - 1].to_vec()
    }

    /// Waits for the end, and gives the whole screen.
    #[track_caller]
    pub fn end(mut self) -> String {
        let status = self.child.wait().unwrap();
        self.reader.take().map(|reader| reader.join());
        assert!(status.success(), "{status}:\n{}", self.text());
        self.text()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
