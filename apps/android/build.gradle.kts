// Versions are in gradle/libs.versions.toml alone.
plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.android.library) apply false
    alias(libs.plugins.kotlin.android) apply false
    alias(libs.plugins.kotlin.jvm) apply false
}

tasks.wrapper {
    // As in gradle/wrapper/gradle-wrapper.properties, whichever Gradle makes the wrapper.
    gradleVersion = "9.2.1"
}
