// What the page does in the browser by itself: copying a command, and frames as high as a report.
() => {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copied]");
    if (!button) return;
    const text = button.parentElement.querySelector("pre").innerText;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // not over plain http: select it instead
      const range = document.createRange();
      range.selectNodeContents(button.parentElement.querySelector("pre"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    const said = button.innerText;
    button.innerText = button.dataset.copied;
    setTimeout(() => { button.innerText = said; }, 1500);
  });
  document.addEventListener("load", (event) => {
    const frame = event.target;
    if (!frame.matches || !frame.matches("iframe.sdc-report") || !frame.contentDocument) return;
    const fit = () => {
      frame.style.height = `${frame.contentDocument.documentElement.scrollHeight + 4}px`;
    };
    new ResizeObserver(fit).observe(frame.contentDocument.body);
    fit();
  }, true);
}
