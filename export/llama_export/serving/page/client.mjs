// Asks the server that the page came from. It knows paths, keys and chunks; it draws nothing.

import { readEvents } from './answer_stream.mjs';
import { brokenOff, faultOf, faultOfResponse, unreachable } from './faults.mjs';

export class Client {
  // `readKey` returns the key that the reader typed; '': none.
  constructor(readKey) {
    this.readKey = readKey;
  }

  // The models that are served. Throws a Fault.
  async models() {
    const response = await this.#ask('v1/models', {});
    try {
      return (await response.json()).data;
    } catch {
      throw brokenOff();
    }
  }

  // Yields the parts of an answer: { text }, { reason } and { usage }. Throws a Fault; after the
  // signal's abort it ends without one.
  async *write({ path, body }, signal) {
    try {
      const response = await this.#ask(path, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
        signal,
      });
      yield* this.#parts(response.body, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async *#parts(stream, signal) {
    try {
      for await (const data of readEvents(stream)) {
        if (data === '[DONE]') return;
        yield* partsOf(JSON.parse(data));
      }
    } catch (error) {
      // A stream that is cut raises a TypeError, and half an event is no JSON.
      throw error instanceof TypeError || error instanceof SyntaxError ? brokenOff() : error;
    }
    if (!signal.aborted) throw brokenOff();
  }

  async #ask(path, options) {
    const key = this.readKey();
    const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: 'no-store' });
    } catch (error) {
      throw options.signal?.aborted ? error : unreachable();
    }
    if (!response.ok) throw await faultOfResponse(response);
    return response;
  }
}

// The parts that a chunk of a chat or of a completion has.
export function* partsOf(chunk) {
  if (chunk.error) throw faultOf(chunk.error);
  const [choice] = chunk.choices ?? [];
  const text = choice?.delta?.content ?? choice?.text;
  if (text) yield { text };
  if (choice?.finish_reason) yield { reason: choice.finish_reason };
  if (chunk.usage) yield { usage: chunk.usage };
}
