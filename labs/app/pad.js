// The pad of the page, after labs/handwriting.js and the ten DIGITS. Gradio gives it `element`, `props` and `trigger`.
const find = (selector) => element.querySelector(selector);

// The server gets the picture's 28x28 pixels, as bytes.
const pad = padOn(find("canvas"), (picture) => {
  find(".pad").classList.toggle("blank", !picture);
  props.value = picture ? btoa(String.fromCharCode(...picture.map((value) => Math.round(255 * value)))) : "";
  trigger("input");
});
find(".undo").addEventListener("click", pad.undo);
find(".clear").addEventListener("click", pad.clear);
addExamples(find(".examples"), DIGITS, pad.show);
