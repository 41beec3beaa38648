import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.kotlin.jvm)
}

// By the place of this module, so that another build may include it where it lies.
val repository = projectDir.resolve("../../..").normalize()
val tables = repository.resolve("apps/shared/tables")
check(tables.resolve("unicode.json").isFile) { "$tables is missing: core has its letters and digits from there" }

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        // Android 28 has Java 8's classes; calls of newer ones would fail when they are made.
        freeCompilerArgs.add("-Xjdk-release=8")
    }
    sourceSets["test"].kotlin.srcDir("src/fixtures/kotlin")
}

dependencies {
    testImplementation(libs.kotlin.test.junit5)
    testImplementation(libs.junit.jupiter)
    testRuntimeOnly(libs.junit.launcher)
}

tasks.processResources {
    from(tables) {
        into("org/llamaexport/core")
    }
}

tasks.test {
    // The bundles of tools/apps/check_android.py, which runs the rest.
    useJUnitPlatform { excludeTags("bundles") }
    inputs.dir(repository.resolve("apps/shared/vectors"))
    systemProperty("llama.repository", repository.path)
    systemProperty("llama.fixtures", repository.resolve("build/android/fixtures").path)
    systemProperty("llama.python", "python3")
}
