// Runs before the page is drawn, so that a chosen theme does not flash; no module, which would wait.
(() => {
  try {
    const theme = JSON.parse(localStorage.getItem('llama-export.theme'));
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  } catch {
    // The browser keeps nothing, so nothing was chosen.
  }
})();
