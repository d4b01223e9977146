// Where browsers allow the camera, QR codes are read live. A photo does it too.
"use strict";
(() => {
  const page = document, form = page.querySelector("form[data-scan]"), media = navigator.mediaDevices;
  if (!media) return;
  const make = (kind, more) => Object.assign(page.createElement(kind), more), frame = make("canvas");
  const button = make("button", { type: "button", className: "wide", textContent: form.dataset.scan });
  const view = make("video", { muted: true, playsInline: true, className: "shot" });
  let stream;
  const end = () => { stream?.getTracks().forEach((track) => track.stop()); stream = null; view.remove(); };

  // The node reads a frame as it reads a photo: 404 when no code is in it.
  const look = async () => {
    const body = new FormData(form);
    Object.assign(frame, { width: view.videoWidth, height: view.videoHeight }).getContext("2d").drawImage(view, 0, 0);
    body.set("photo", await new Promise((done) => frame.toBlob(done, "image/jpeg")), "frame");
    const answer = await fetch(form.action, { method: "POST", body });
    if (!stream || answer.status === 404) return;
    end();
    if (answer.ok) return location.assign(answer.url);
    const told = new DOMParser().parseFromString(await answer.text(), "text/html");
    page.getElementById("main").replaceWith(told.getElementById("main"));
  };

  button.onclick = async () => {
    if (stream) return end();
    try {
      stream = await media.getUserMedia({ video: { facingMode: "environment" } });
      button.before(view);
      view.srcObject = stream;
      await view.play();
      const reader = window.BarcodeDetector && new BarcodeDetector({ formats: ["qr_code"] });
      while (stream && !page.hidden) {
        if (!reader || (await reader.detect(view)).length) await look();
        await new Promise((go) => setTimeout(go, 300));
      }
    } catch {
      button.replaceWith(make("p", { className: "notice bad", textContent: form.dataset.refused }));
    }
    end();
  };
  form.querySelector("h2").after(button);
})();
