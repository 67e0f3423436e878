// How likely a model finds what stands there already: a text, or a reply in its conversation.

import { json } from "./api.js";
import { state } from "./state.js";
import { ofCompletion, shown } from "./tokens.js";
import { number, t } from "./words.js";

/// Alternatives that are asked for with each token.
export const TOP = 5;

/// The tokens of a text, or of numbers of tokens. Nothing is written, and what was sent is echoed.
export async function score(model, prompt, signal) {
  const asked = { model, prompt, max_tokens: 0, echo: true, logprobs: TOP };
  const { choices } = await json("/v1/completions", { method: "POST", body: asked, signal });
  return ofCompletion(choices[0].logprobs);
}

/// The tokens of a reply to these messages. It is cut into tokens anew: where a text can be spelt in several ways, they may be
/// others than those that were drawn.
export async function scoreReply(model, messages, reply) {
  if (!state.models.some(({ id }) => id === model)) throw new Error(t("modelGone", { model }));
  const tokenize = (messages) => json("/tokenize", { method: "POST", body: { model, messages } });
  const before = await tokenize(messages);
  const whole = await tokenize([...messages, { role: "assistant", content: reply }]);
  if (before.tokens.some((id, at) => id !== whole.tokens[at])) throw new Error(t("replyNotFound"));
  // What the template writes after the reply need not fit into the context.
  const known = await score(model, whole.tokens.slice(0, whole.max_model_len));
  const tokens = known.slice(before.count);
  let text = "";
  const last = shown(tokens).findIndex((piece) => (text = (text + piece).trimStart()).length >= reply.trim().length);
  if (last < 0) throw new Error(t("replyTooLong", { n: number(whole.max_model_len) }));
  return tokens.slice(0, last + 1);
}
