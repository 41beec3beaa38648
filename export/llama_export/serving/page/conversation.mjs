// A conversation: its turns, and the request that continues it. It knows no network and no page.
//
// A turn is { question, answer, figures, fault }: `figures` says how its answer was written, `fault`
// what kept it from being written. A turn without an answer is no part of what is sent,
// unless it is the last one, whose answer is wanted.

import { parametersOf } from './settings.mjs';

export function newTurn(question) {
  return { question, answer: '', figures: null, fault: null };
}

// The request for the answer of the last turn.
export function requestOf(turns, model, settings) {
  const parameters = {
    model: model.id,
    stream: true,
    stream_options: { include_usage: true },
    ...parametersOf(settings, model),
  };
  const said = turns.filter((turn, at) => turn.answer || at === turns.length - 1);
  if (!model.meta.for_chat) {
    return { path: 'v1/completions', body: { ...parameters, prompt: textOf(said) } };
  }
  const messages = said.flatMap(({ question, answer }) => [
    { role: 'user', content: question },
    ...(answer ? [{ role: 'assistant', content: answer }] : []),
  ]);
  const system = (settings.system ?? '').trim();
  if (system) messages.unshift({ role: 'system', content: system });
  return { path: 'v1/chat/completions', body: { ...parameters, messages } };
}

// The one text that a model goes on with that was not trained to answer.
function textOf(turns) {
  return turns.map(({ question, answer }) => question + answer).join('');
}

// Measures an answer while it comes. `now` returns seconds.
export class Stopwatch {
  #now;
  #begun;
  #first = null;
  #last = null;

  constructor(now) {
    this.#now = now;
    this.#begun = now();
  }

  mark() {
    this.#last = this.#now();
    this.#first ??= this.#last;
  }

  get elapsedS() {
    return this.#now() - this.#begun;
  }

  // What is known of an answer. `usage`: the server's; null where the answer was stopped.
  // `reason`: 'stop', 'length', or 'stopped' by the reader. `by`: who wrote it; '': there is but one.
  figures({ usage, reason, by }, request, model) {
    const written = usage?.completion_tokens ?? null;
    const decodeS = this.#last - this.#first;
    return {
      by,
      reason,
      written,
      prompt: usage?.prompt_tokens ?? null,
      cached: usage?.prompt_tokens_details?.cached_tokens ?? null,
      firstS: this.#first === null ? null : this.#first - this.#begun,
      // The first token came from the prompt: it is no step of writing.
      perS: written > 1 && decodeS > 0 ? (written - 1) / decodeS : null,
      most: request.body.max_tokens,
      context: model.meta.context,
    };
  }
}

// The words below an answer, in the order in which they are shown.
export function wordsOf({ by, reason, written, prompt, cached, firstS, perS, most, context }) {
  const words = by ? [by] : [];
  if (written !== null) words.push(count(written, 'token'));
  if (perS !== null) words.push(`${perS.toFixed(1)} tok/s`);
  if (firstS !== null) words.push(`first token after ${firstS.toFixed(2)} s`);
  if (prompt !== null) {
    words.push(`prompt ${count(prompt, 'token')}${cached ? `, ${cached} of them cached` : ''}`);
    words.push(`context ${prompt + written} of ${context}`);
  }
  if (reason === 'stopped') words.push('stopped by you');
  if (reason === 'length') {
    words.push(written >= most ? `cut at max tokens (${most})` : 'cut: the context is full');
  }
  return words;
}

function count(number, word) {
  return `${number} ${word}${number === 1 ? '' : 's'}`;
}

const LEFT = { message: 'The page was left while this was written.', hint: '' };

// A conversation as it was kept, or what of it can be trusted.
export function revive(kept) {
  if (!Array.isArray(kept)) return [];
  const isTurn = (turn) => typeof turn?.question === 'string' && typeof turn?.answer === 'string';
  const turns = kept.filter(isTurn).map((turn) => ({ ...newTurn(''), ...turn }));
  const last = turns.at(-1);
  if (last && !last.figures && !last.fault) last.fault = { ...LEFT };
  return turns;
}
