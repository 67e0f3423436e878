//! The server as a whole, seen from a socket and from inside.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use generate::Finish;

use super::*;
use crate::conductor::tests::{LONG, model, wait_until};
use crate::state::{Phase, Settings};

type Ended = Result<usize, ServeError<std::convert::Infallible>>;

/// A server with one model, which is ready.
fn start(settings: Settings) -> (State, SocketAddr, JoinHandle<Ended>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (state, address) = (State::new(settings), listener.local_addr().unwrap());
    let own = state.clone();
    let running =
        std::thread::spawn(move || run(listener, own, Arc::default(), || Ok(vec![model()]), |_| ()));
    wait_until(|| state.phase() == Phase::Ready);
    (state, address, running)
}

fn send(address: SocketAddr, stream: bool, tokens: usize) -> TcpStream {
    let body = format!(
        r#"{{"model": "m", "prompt": "fox", "max_tokens": {tokens}, "min_tokens": {tokens}, "stream": {stream}}}"#
    );
    let mut socket = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).unwrap();
    socket
}

fn read(mut socket: TcpStream) -> String {
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_client_that_leaves_frees_its_place_whether_it_streams_or_not() {
    let (state, address, _running) = start(Settings { batch: 1, queue: 1, ..Settings::default() });
    let figures = state.models()[0].figures();
    for round in 0..10 {
        let socket = send(address, round % 2 == 0, LONG);
        wait_until(|| figures.running() == 1);
        // One that still waits leaves, too.
        let waiting = send(address, round % 2 == 1, LONG);
        wait_until(|| figures.waiting() == 1);
        drop(waiting);
        wait_until(|| figures.waiting() == 0);
        drop(socket);
        wait_until(|| figures.running() == 0);
    }
    wait_until(|| state.working() == 0);
    let ends: Vec<_> = figures.finished().filter(|(_, n)| *n > 0).collect();
    assert_eq!(ends, [(Finish::Cancelled, 20)], "none was written to its end");
    assert!(read(send(address, false, 3)).starts_with("HTTP/1.1 200"));
}

#[test]
fn what_does_not_end_in_its_time_is_dropped_and_counted() {
    let drain = Duration::from_millis(1);
    let (state, address, running) = start(Settings { batch: 1, drain, ..Settings::default() });
    let sockets = [send(address, true, LONG), send(address, false, LONG)];
    wait_until(|| state.models()[0].figures().waiting() == 1);
    state.drain();
    assert_eq!(running.join().unwrap().unwrap(), 2);
    let [streamed, whole] = sockets.map(read);
    assert!(whole.starts_with("HTTP/1.1 503") && whole.contains("shutting_down"), "{whole}");
    // The stream has begun or not; either way it is told.
    assert!(streamed.contains("shutting_down") && !streamed.contains("[DONE]"), "{streamed}");
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ended =
        run(listener, State::new(Settings::default()), Arc::default(), || Err("no such model"), |_| ());
    assert!(matches!(ended, Err(ServeError::Load("no such model"))));
}
