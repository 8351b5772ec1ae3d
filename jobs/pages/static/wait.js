// Says when the server does not answer while a file is at work; htmx goes on asking.

const wrong = document.getElementById("wrong");

document.addEventListener("htmx:sendError", () => {
  if (!wrong.textContent) wrong.textContent = wrong.dataset.words;
});
document.addEventListener("htmx:afterOnLoad", () => {
  wrong.textContent = "";
});
