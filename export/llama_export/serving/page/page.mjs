// The page: what happens when the reader types, presses and chooses. It brings the other files
// together; what a request holds and how an answer is drawn is theirs.

import { Client } from './client.mjs';
import { askForKey, chooseTheme, copyText, panel, SettingsForm } from './controls.mjs';
import { newTurn, requestOf, revive, Stopwatch } from './conversation.mjs';
import { Fault } from './faults.mjs';
import { Log } from './log.mjs';
import { make } from './markdown.mjs';
import { settingsStore, tabStore } from './stores.mjs';

const find = (id) => document.getElementById(id);
const isTouched = matchMedia('(hover: none) and (pointer: coarse)');

class Page {
  #turns = revive(tabStore.recall('turns', []));
  #settings = settingsStore.recall('settings', {});
  #models = [];
  #model = null;
  #answering = null; // what stops the answer that is being written
  #setAside = null; // what was in the box before the last message came into it to be edited

  constructor() {
    this.text = find('text');
    this.client = new Client(() => tabStore.recall('key', ''));
    this.log = new Log(find('log'), find('to-end'), {
      copy: (text) => this.#copy(text),
      regenerate: () => this.#regenerate(),
      edit: () => this.#edit(),
    });
    this.form = new SettingsForm(find('settings'), this.#settings, () =>
      settingsStore.keep('settings', this.#settings),
    );
    this.#listen();
    this.text.value = tabStore.recall('draft', '');
    this.#fitBox();
  }

  #listen() {
    for (const name of ['settings', 'help']) panel(find(name), find(`open-${name}`));
    panel(find('key'));
    chooseTheme(find('theme'));
    const presses = {
      'cancel-edit': () => this.#endEdit(),
      new: () => this.#begin(),
      reconnect: () => this.connect(),
      restore: () => this.#restore(),
      stop: () => this.#answering?.abort(),
    };
    for (const [id, act] of Object.entries(presses)) find(id).addEventListener('click', act);
    find('model').addEventListener('change', () => this.#choose(find('model').value));
    find('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.text.addEventListener('input', () => this.#fitBox());
    this.text.addEventListener('keydown', (event) => this.#pressInBox(event));
    document.addEventListener('keydown', (event) => this.#press(event));
    addEventListener('pagehide', () => this.#keep());
    // A keyboard on a phone's screen takes its room from what is seen of the page.
    const seen = globalThis.visualViewport;
    seen?.addEventListener('resize', () => {
      document.documentElement.style.setProperty('--height', `${seen.height}px`);
    });
  }

  // Learn what is served; a server with a key is asked again once it is typed.
  async connect() {
    find('no-models').hidden = true;
    try {
      this.#models = await this.client.models();
    } catch (fault) {
      if (fault.status === 401 && (await this.#wantKey())) return this.connect();
      return this.#showNoModels(fault);
    }
    const chosen = settingsStore.recall('model', '');
    const known = this.#models.map(({ id }) => id);
    find('model').replaceChildren(...known.map((id) => make('option', { value: id }, id)));
    find('model').hidden = known.length === 1;
    find('name').hidden = known.length > 1;
    this.#choose(known.includes(chosen) ? chosen : known[0]);
    if (!isTouched.matches) this.text.focus();
  }

  #showNoModels(fault) {
    const box = find('no-models');
    box.querySelector('strong').textContent = fault.message;
    box.querySelector('p').textContent = fault.hint ?? '';
    box.hidden = false;
    find('greeting').textContent = 'No model yet';
    this.log.show(this.#turns, false);
  }

  async #wantKey() {
    const tried = tabStore.recall('key', '');
    find('key-fault').textContent = tried ? 'The server does not take the key that was typed.' : '';
    const key = await askForKey(find('key'));
    if (key) tabStore.keep('key', key);
    return Boolean(key);
  }

  #choose(id) {
    const model = this.#models.find((each) => each.id === id);
    this.#model = model;
    settingsStore.keep('model', id);
    find('model').value = id;
    find('name').textContent = id;
    document.title = `${id} – llama-export`;
    const { target, recipe, size_bytes, context, runs_in, for_chat } = model.meta;
    const size = `${Math.round(size_bytes / 1e6)} MB`;
    const facts = [target, recipe, size, runs_in && `runs in ${runs_in}`].filter(Boolean);
    find('artifact').textContent = facts.join(' · ');
    find('greeting').textContent = for_chat ? `Ask ${id}` : `Let ${id} go on with a text`;
    find('about').textContent = for_chat
      ? `A conversation has room for ${context} tokens.`
      : `It was not trained to answer: begin a text, and it writes on. There is room for ${context} tokens.`;
    this.text.placeholder = for_chat ? 'Your message' : 'A text to go on with';
    this.text.setAttribute('aria-label', this.text.placeholder);
    find('send').textContent = for_chat ? 'Send' : 'Go on';
    this.form.fit(model);
    this.#show();
  }

  #show() {
    this.log.show(this.#turns, this.#model !== null && !this.#model.meta.for_chat);
    find('restore').hidden = tabStore.recall('previous', null) === null;
    this.#keep();
  }

  #keep() {
    tabStore.keep('turns', this.#turns);
    tabStore.keep('draft', this.text.value);
  }

  #say(words) {
    find('status').textContent = words;
  }

  #setText(text) {
    this.text.value = text;
    this.#fitBox();
    this.text.focus();
  }

  #fitBox() {
    this.text.style.height = 'auto';
    this.text.style.height = `${this.text.scrollHeight}px`;
    tabStore.keep('draft', this.text.value);
  }

  #press(event) {
    if (document.querySelector('dialog[open]')) return;
    if (event.key === 'Escape' && this.#answering) this.#answering.abort();
    else if (event.key === 'Escape' && this.#setAside !== null) this.#endEdit();
    else if (event.code === 'KeyO' && event.shiftKey && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.#begin();
    }
  }

  #pressInBox(event) {
    // What an input method composes ends with Enter too; 229 is Safari's word for that.
    const isComposing = event.isComposing || event.keyCode === 229;
    if (event.key === 'Enter' && !event.shiftKey && !isComposing && !isTouched.matches) {
      event.preventDefault();
      this.#send();
    } else if (event.key === 'ArrowUp' && this.text.value === '') {
      event.preventDefault();
      this.#edit();
    }
  }

  async #send() {
    if (this.#answering) return this.#say('An answer is being written; Esc stops it.');
    if (!this.#model) await this.connect();
    const text = this.text.value;
    const goesOn = !this.#model?.meta.for_chat && this.#turns.length > 0 && this.#setAside === null;
    if (!this.#model || (text.trim() === '' && !goesOn)) return;
    const next = this.#setAside ?? '';
    if (this.#setAside !== null) this.#turns.pop();
    this.#leaveEdit();
    this.#turns.push(newTurn(text));
    this.#setText(next);
    tabStore.forget('previous');
    this.#show();
    await this.#answer();
  }

  // Write the answer of the last turn.
  async #answer() {
    const turn = this.#turns.at(-1);
    const model = this.#model;
    const before = { ...turn };
    Object.assign(turn, { answer: '', figures: null, fault: null });
    this.#show();
    this.#setBusy(true);
    const request = requestOf(this.#turns, model, this.#settings);
    const watch = new Stopwatch(() => performance.now() / 1000);
    const stopping = (this.#answering = new AbortController());
    const by = this.#models.length > 1 ? model.id : '';
    const found = { by, usage: null, reason: 'stopped' };
    try {
      for await (const { text, ...rest } of this.client.write(request, stopping.signal)) {
        Object.assign(found, rest);
        if (text === undefined) continue;
        watch.mark();
        turn.answer += text;
        this.log.grow();
      }
      turn.figures = watch.figures(found, request, model);
    } catch (error) {
      turn.fault = { message: error.message, hint: error.hint ?? '' };
      if (!(error instanceof Fault)) throw error; // ours, for the console
      if (error.status === 401 && (await this.#wantKey())) {
        Object.assign(turn, before);
        return await this.#answer();
      }
    } finally {
      if (this.#answering === stopping) this.#end(turn, before);
    }
  }

  #end(turn, before) {
    this.#answering = null;
    const { answer, figures, fault } = turn;
    const isMissing = answer === '' && (fault || figures?.reason === 'stopped');
    // The answer that was to be replaced stays where no other one came.
    if (isMissing && before.answer) Object.assign(turn, before, { fault });
    this.#keep();
    this.log.drawLast();
    this.#setBusy(false);
    const written = figures?.written;
    if (fault) this.#say(answer ? 'The answer broke off.' : 'Not answered.');
    else this.#say(written ? `Answered in ${written} tokens.` : 'Stopped.');
  }

  #setBusy(isBusy) {
    const hadFocus = [find('send'), find('stop')].includes(document.activeElement);
    find('send').hidden = isBusy;
    find('stop').hidden = !isBusy;
    if (hadFocus) (isBusy ? find('stop') : this.text).focus();
    find('model').disabled = isBusy;
    this.log.setBusy(isBusy);
    if (isBusy) this.#say('Answering …');
  }

  async #regenerate() {
    if (!this.#model) await this.connect();
    if (!this.#model || this.#answering) return;
    if (this.#setAside !== null) this.#endEdit();
    this.text.focus();
    this.#answer();
  }

  // Bring the last message back into the box; what was there is put back afterwards.
  #edit() {
    const question = this.#turns.at(-1)?.question;
    if (this.#answering || this.#setAside !== null || !question) return;
    this.#setAside = this.text.value;
    find('editing').hidden = false;
    this.#setText(question);
  }

  #endEdit() {
    this.#setText(this.#setAside ?? '');
    this.#leaveEdit();
  }

  #leaveEdit() {
    this.#setAside = null;
    find('editing').hidden = true;
  }

  #begin() {
    this.#answering?.abort();
    if (this.#turns.length) tabStore.keep('previous', this.#turns);
    this.#turns = [];
    if (this.#setAside !== null) this.#endEdit();
    this.#show();
    this.#say('');
    this.text.focus();
  }

  #restore() {
    this.#turns = revive(tabStore.recall('previous', []));
    tabStore.forget('previous');
    this.#show();
    this.text.focus();
  }

  async #copy(text) {
    const isCopied = await copyText(text);
    this.#say(isCopied ? 'Copied.' : 'The browser does not let this page copy.');
    return isCopied;
  }
}

new Page().connect();
