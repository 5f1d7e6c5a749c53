// Search runs in a Worker, which browsers refuse on pages opened from disk (file:). There, this class runs the same script in a
// hidden iframe instead. mkdocs-material would otherwise load such a shim from a CDN.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.inside = frame.contentWindow
      window.addEventListener("message", (event) => {
        if (event.source === this.inside) this.dispatchEvent(new MessageEvent("message", { data: event.data }))
      })
      const page = this.inside.document
      page.open()
      page.write("<!doctype html><title>worker</title><body></body>")
      page.close()
      this.inside.postMessage = (data) => window.dispatchEvent(new MessageEvent("message", { data, source: this.inside }))
      this.loaded = new Promise((resolve, reject) => {
        const script = page.createElement("script")
        script.src = url
        script.onload = resolve
        script.onerror = () => reject(new Error(`cannot load ${url}`))
        page.body.appendChild(script)
      })
    }

    postMessage(data) {
      this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.inside.frameElement.remove()
    }
  }
}
