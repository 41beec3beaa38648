// What the browser keeps for the page. It knows keys and JSON; it does not know what they mean.
//
// A browser may refuse both stores, as in some private windows: then nothing outlives the page.

const PREFIX = 'llama-export.';

// Settings, for every tab and the next visit.
export const settingsStore = openStore('localStorage');
// The conversation, the draft and the key: of this tab alone, and gone when it is closed.
export const tabStore = openStore('sessionStorage');

function openStore(name) {
  const reach = (use) => {
    try {
      return use(globalThis[name]);
    } catch {
      return null; // refused, or full
    }
  };
  return {
    // What was kept under a key; `otherwise` where that is nothing, or no JSON.
    recall(key, otherwise) {
      return reach((store) => JSON.parse(store.getItem(PREFIX + key))) ?? otherwise;
    },
    keep(key, value) {
      reach((store) => store.setItem(PREFIX + key, JSON.stringify(value)));
    },
    forget(key) {
      reach((store) => store.removeItem(PREFIX + key));
    },
  };
}
