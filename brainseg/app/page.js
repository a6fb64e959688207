() => {
  // The wheel over the picture goes through the slices, a slice a notch.
  document.addEventListener("wheel", (event) => {
    const slider = document.querySelector("#place input[type=range]");
    if (!slider || !event.target.closest("#picture svg")) return;
    event.preventDefault();
    slider.value = Number(slider.value) - Math.sign(event.deltaY);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }, { passive: false });

  // gradio takes dropped files only: the files of a dropped folder are handed to it in the folder's place.
  const filesOf = async (entry) => {
    if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
    const reader = entry.createReader();
    const found = [];
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return found;
      for (const one of some) found.push(...(await filesOf(one)));
    }
  };
  document.addEventListener("drop", async (event) => {
    const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.some((entry) => entry.isDirectory)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const input = document.querySelector("input[webkitdirectory]");
    const held = new DataTransfer();
    for (const entry of entries) for (const file of await filesOf(entry)) held.items.add(file);
    input.files = held.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, { capture: true });
}
