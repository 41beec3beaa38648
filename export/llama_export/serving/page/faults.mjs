// What went wrong, in words, and what to do. It knows statuses and OpenAI's shape of errors.

export class Fault extends Error {
  // `hint`: what to do. `status`: of HTTP, 0 where there was no response.
  constructor(message, hint, status = 0) {
    super(message);
    this.hint = hint;
    this.status = status;
  }
}

const HINTS = {
  401: 'Type the key that the server was started with.',
  403: 'Open the page by the address that the server has named.',
  404: 'The server may serve other models by now: load the page again.',
  413: 'Begin a new conversation, or shorten the message.',
  429: 'Others are being answered. Your message is kept.',
  500: 'The terminal of the server has a line on it.',
  503: 'Start the server again, then try again. Your message is kept.',
  504: 'Ask for fewer tokens, or start the server with a larger --timeout.',
};
// In the middle of a stream there is no status; the code, or whose fault it is, stands for it.
const STATUSES = { timeout: 504, server_shutting_down: 503, server_error: 500 };
const FULL =
  'Begin a new conversation, or shorten the message or the system message. A server that was ' +
  'started with a smaller --context than the bundle has can be given more.';

// A response of HTTP that is no answer.
export async function faultOfResponse(response) {
  let error = null;
  try {
    error = (await response.json()).error;
  } catch {
    // A proxy's page, perhaps; the status is all that is known.
  }
  return faultOf(error, response.status, response.headers.get('retry-after'));
}

// An error in OpenAI's shape, of a response or in the middle of a stream. `waitS`: seconds after
// which the server wants to be asked again; null: it does not say.
export function faultOf(error, status = 0, waitS = null) {
  const message = error?.message || `the server answered ${status} and did not say why`;
  const isFull = error?.code === 'context_length_exceeded';
  const wait = waitS === null ? '' : `Try again in ${waitS} s. `;
  const hint = wait + (isFull ? FULL : (HINTS[status || STATUSES[error?.code ?? error?.type]] ?? ''));
  return new Fault(sentence(message), hint, status);
}

export function unreachable() {
  return new Fault(
    'The server cannot be reached.',
    'It has ended, or the network is down: see its terminal, then try again. Your message is kept.',
  );
}

export function brokenOff() {
  return new Fault(
    'The answer broke off before its end.',
    'The server has ended, or something between it and you: see its terminal, then try again.',
  );
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
