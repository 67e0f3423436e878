// Server-sent events, as they come in pieces.

/// Takes in pieces of a stream, and gives the data of each event that is whole.
export class Events {
  #rest = "";
  #data = [];

  /// The events that this piece completes.
  push(piece) {
    const text = this.#rest + piece;
    const whole = [];
    let start = 0;
    for (;;) {
      const end = text.indexOf("\n", start);
      if (end < 0) break;
      this.#line(text.slice(start, text[end - 1] === "\r" && end > start ? end - 1 : end), whole);
      start = end + 1;
    }
    this.#rest = text.slice(start);
    return whole;
  }

  #line(line, whole) {
    if (line === "") {
      if (this.#data.length > 0) whole.push(this.#data.join("\n"));
      this.#data = [];
    } else if (line.startsWith("data:")) {
      this.#data.push(line.slice(line[5] === " " ? 6 : 5));
    }
    // Comments, which keep connections alive, and other fields say nothing here.
  }
}
