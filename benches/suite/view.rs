//! What a server needs that shows nothing but scrapes.

use testrun_exporter::web;

/// Answers scrapes with what this gives.
pub(crate) struct Scraped<F>(pub(crate) F);

impl<F: Fn(web::Wanted) -> web::Scrape + Send + Sync + 'static> web::View for Scraped<F> {
    fn metrics(&self, wanted: web::Wanted) -> web::Scrape {
        (self.0)(wanted)
    }
    fn scraped(&self, _: u64) {}
    fn ready(&self) -> bool {
        true
    }
    fn healthy(&self) -> bool {
        true
    }
    fn status_json(&self) -> String {
        String::new()
    }
    fn landing(&self) -> web::Landing {
        web::Landing::default()
    }
    async fn reload(&self) -> Result<String, String> {
        Ok(String::new())
    }
}
