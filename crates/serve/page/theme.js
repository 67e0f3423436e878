// Light or dark, before anything is drawn, so that nothing flashes. Not a module: modules run later.
(() => {
  try {
    const theme = localStorage.getItem("gpt2.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage may be forbidden; then the system's theme it is.
  }
})();
